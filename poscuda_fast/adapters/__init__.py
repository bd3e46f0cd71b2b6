"""The batch function `Protector` where people keep audio: one module for each framework, loaded only when asked for."""
