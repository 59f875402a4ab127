"""What every suite shares: hypothesis settings for a machine that is busy with other things."""

from hypothesis import settings

settings.register_profile("house", deadline=None, print_blob=True)
settings.load_profile("house")
