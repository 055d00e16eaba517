"""A spoken conversation: devices, turn taking and the model put together."""
