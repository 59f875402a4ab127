"""What would break, leak or starve a gateway, found before it happens. Pure: all that is looked at was read before.

One function per check, in modules by what they look at; `examine` has the table of them.
"""
