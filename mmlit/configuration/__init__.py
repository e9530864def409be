"""What a resolved configuration says, as plain containers: is it right, and which run is it?"""
