"""Ready handler modules, for the settings' `handlers`: `maildefer.handlers.log`, `.queue`, `.forward`."""
