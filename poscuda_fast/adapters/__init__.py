"""`Protector` for the frameworks where people keep audio: one module each, imported only on request."""
