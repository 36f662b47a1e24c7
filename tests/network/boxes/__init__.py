"""Middle boxes between a client and a server, honest and broken: `fastecho check` must tell them.

Each module is one, and runs alone, with this folder's parent in PYTHONPATH:

    python -m boxes.reorder --listen 127.0.0.1:0 --to 127.0.0.1:7777

It prints the address that it listens on, and relays until it is ended. Standard library only.
"""
