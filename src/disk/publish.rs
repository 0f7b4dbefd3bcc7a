//! Active → published: hash, final metadata, sync, one rename.
