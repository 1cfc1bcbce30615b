//! The only crate with sockets: listens, dials, frames, limits; drives the machines.
