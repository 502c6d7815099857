"""Which row decodes in which slot, and until when. Host only: asks no device."""
