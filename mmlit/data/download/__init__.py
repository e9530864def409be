"""Published archives are fetched, checked and unpacked, however often that is interrupted."""
