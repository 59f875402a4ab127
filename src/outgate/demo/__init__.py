"""The gateway at work, in front of a person: the real daemon in the laboratory, with real packets and an oracle
outside.
"""
