//! Errors of the JSON-RPC interface: Core's numbers, Core's texts where clients look at them.

use serde_json::{Value, json};

use crate::backend::BackendError;

/// Malformed request object; HTTP 400 for old clients.
pub const INVALID_REQUEST: i32 = -32600;
/// No such method; HTTP 404 for old clients.
pub const METHOD_NOT_FOUND: i32 = -32601;
/// Arguments that contradict each other.
pub const INVALID_PARAMS: i32 = -32602;
/// A fault of ours.
pub const INTERNAL_ERROR: i32 = -32603;
/// The body is no JSON.
pub const PARSE_ERROR: i32 = -32700;
/// Anything without a number of its own.
pub const MISC_ERROR: i32 = -1;
/// An argument has the wrong JSON type.
pub const TYPE_ERROR: i32 = -3;
/// An address, a hash or a key that names nothing.
pub const INVALID_ADDRESS_OR_KEY: i32 = -5;
/// An argument out of range, missing or given twice.
pub const INVALID_PARAMETER: i32 = -8;
/// The part that could answer is not running.
pub const NOT_CONNECTED: i32 = -9;
/// Blocks are still being fetched.
pub const CLIENT_IN_INITIAL_DOWNLOAD: i32 = -10;
/// Our own data does not allow it.
pub const DATABASE_ERROR: i32 = -20;
/// Raw bytes that do not decode.
pub const DESERIALIZATION_ERROR: i32 = -22;
/// The node is on the list already.
pub const NODE_ALREADY_ADDED: i32 = -23;
/// The node is not on the list.
pub const NODE_NOT_ADDED: i32 = -24;
/// A block or transaction could not be submitted.
pub const VERIFY_ERROR: i32 = -25;
/// A block or transaction breaks a rule.
pub const VERIFY_REJECTED: i32 = -26;
/// The transaction is confirmed already.
pub const ALREADY_IN_UTXO_SET: i32 = -27;
/// The node is still opening its data.
pub const IN_WARMUP: i32 = -28;
/// No such connection.
pub const NODE_NOT_CONNECTED: i32 = -29;
/// No address or address range.
pub const INVALID_IP_OR_SUBNET: i32 = -30;
/// The Bitcoin part is off.
pub const P2P_DISABLED: i32 = -31;

/// What a failed call answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RpcError {
    /// One of the constants of this module.
    pub code: i32,
    /// One line for people, where Core has no longer text.
    pub message: String,
}

impl RpcError {
    /// An error with a code and a message.
    pub fn new(code: i32, message: impl Into<String>) -> Self {
        Self {
            code,
            message: message.into(),
        }
    }

    /// The error as the `error` member of a reply.
    pub fn to_json(&self) -> Value {
        json!({ "code": self.code, "message": self.message })
    }
}

impl From<BackendError> for RpcError {
    fn from(err: BackendError) -> Self {
        let code = match &err {
            BackendError::Unavailable(_) => NOT_CONNECTED,
            BackendError::NotFound(_) => INVALID_ADDRESS_OR_KEY,
            BackendError::AlreadyExists(_) | BackendError::Invalid(_) => INVALID_PARAMETER,
            BackendError::Internal(_) => INTERNAL_ERROR,
        };
        Self::new(code, err.to_string())
    }
}
