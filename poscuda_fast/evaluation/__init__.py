"""Does it work on my files? Small models are trained on them, clean and protected, and tested; needs PyTorch.

The only part of the library that imports torch: nothing else imports it, but `poscuda evaluate` when it is called.
`study.evaluate` is the whole of it.
"""
