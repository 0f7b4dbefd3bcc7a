//! The folder of recordings: active → published, free-space floor, repair.
