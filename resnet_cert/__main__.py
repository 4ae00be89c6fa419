"""`python -m resnet_cert`."""

from resnet_cert.cli import main

main()
