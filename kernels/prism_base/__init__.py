"""What every layer shares and no library is needed for: the root of the errors, and names for attempts."""
