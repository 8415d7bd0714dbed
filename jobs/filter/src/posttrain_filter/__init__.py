"""The filter stage: keeps, drops and renames rows of a dataset, and publishes what is left."""
