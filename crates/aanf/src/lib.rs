//! AKMA Anchor Function (TS 33.535, TS 29.535)
