//! The methods about ZeroMQ, defined once.

use crate::rpc::method::{Method, Run};
use crate::rpc::zmq;

pub(super) static METHODS: &[Method] = &[Method {
    name: "getzmqnotifications",
    group: "zmq",
    about: "What is published over ZeroMQ, and where.",
    args: &[],
    result: "[{...},...]    type, address, hwm",
    run: Run::Blocking(zmq::getzmqnotifications),
}];
