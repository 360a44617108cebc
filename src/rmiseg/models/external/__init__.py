"""Models of other libraries, by names such as smp:Unet: one module a library, imported when a name asks for it."""
