"""What stages can be told and what they answer.

Pydantic only: the operator, the stage programs and the command line import this package, and it imports none of them.
"""
