//! What others speak to us: Core-compatible JSON-RPC and the dashboard.
