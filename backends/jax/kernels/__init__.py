"""What is written by hand for a device, each beside the plain form that judges it and stands in for it."""
