"""What every suite shares: hypothesis settings for a machine that is busy with other things, and a way to interrupt."""

import signal

from hypothesis import settings

settings.register_profile("house", deadline=None, print_blob=True)
settings.load_profile("house")

# A shell starts what runs in its background with SIGINT ignored, and what stories start would inherit that.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
