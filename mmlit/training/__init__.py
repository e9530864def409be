"""The LightningModule, gathering over devices, schedules and parameter groups."""
