//! Storage traits and their backends: files, memory, and one that crashes on purpose.
