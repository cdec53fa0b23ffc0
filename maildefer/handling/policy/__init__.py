"""The project's policy: a function that the front end asks about each recipient.

decide     the questions and answers as values, and the call of the function
process    the process in which it runs; its client is maildefer.intake.access.policy_client

Imports point down: process > decide.
"""
