"""Code that the resources of the API share."""
