"""What the training stages share: reading data and models, callbacks, evaluation by generation, export.

Importing the package imports no ML library; its modules do.
"""
