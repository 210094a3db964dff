import os

# OpenCV reads its limit once, when it is loaded; `decode.Reading` has the one that holds for every decoder.
os.environ["OPENCV_IO_MAX_IMAGE_PIXELS"] = str(2**50)
