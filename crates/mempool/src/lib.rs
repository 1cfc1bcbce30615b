//! Policy: admission, eviction, block templates.
