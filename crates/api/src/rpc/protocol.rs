//! JSON-RPC 1.0, 1.1 and 2.0 as Bitcoin Core speaks them: what a request is, what a reply is.
//!
//! A request that says `"jsonrpc": "2.0"` gets the strict form (HTTP 200 with either `result` or `error`, no answer
//! to a notification); every other gets the old form (both members, errors as HTTP status too).

use serde_json::{Map, Value};

use super::error::{INVALID_REQUEST, RpcError};

/// Which form the reply takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Version {
    /// 1.0 and 1.1.
    Legacy,
    /// 2.0.
    V2,
}

/// Who gets the reply: the part of a request that is known even when the rest is broken.
#[derive(Clone, Debug)]
pub(crate) struct Envelope {
    /// The reply's form.
    pub version: Version,
    /// The request's `id`; `None` when it had none.
    pub id: Option<Value>,
}

impl Default for Envelope {
    /// For a body that is no request at all: the old form with a null id.
    fn default() -> Self {
        Self {
            version: Version::Legacy,
            id: Some(Value::Null),
        }
    }
}

impl Envelope {
    /// A 2.0 request without an id is carried out but never answered.
    pub(crate) fn is_notification(&self) -> bool {
        self.version == Version::V2 && self.id.is_none()
    }

    /// The reply object.
    pub(crate) fn reply(self, answer: Result<Value, RpcError>) -> Value {
        let mut reply = Map::new();
        let legacy = self.version == Version::Legacy;
        if !legacy {
            reply.insert("jsonrpc".into(), "2.0".into());
        }
        match answer {
            Ok(result) => {
                reply.insert("result".into(), result);
                if legacy {
                    reply.insert("error".into(), Value::Null);
                }
            }
            Err(error) => {
                if legacy {
                    reply.insert("result".into(), Value::Null);
                }
                reply.insert("error".into(), error.to_json());
            }
        }
        if let Some(id) = self.id {
            reply.insert("id".into(), id);
        }
        Value::Object(reply)
    }
}

/// Arguments as sent.
#[derive(Clone, Debug, PartialEq)]
pub enum Params {
    /// By position.
    Positional(Vec<Value>),
    /// By name.
    Named(Map<String, Value>),
}

/// A well-formed call.
#[derive(Clone, Debug)]
pub struct Request {
    /// The method's name.
    pub method: String,
    /// Its arguments.
    pub params: Params,
}

/// Reads a request object. The envelope comes back in either case, as far as it could be read.
pub(crate) fn parse(value: Value) -> (Envelope, Result<Request, RpcError>) {
    let mut envelope = Envelope::default();
    let invalid = |text: &str| Err(RpcError::new(INVALID_REQUEST, text));
    let Value::Object(mut request) = value else {
        return (envelope, invalid("Invalid Request object"));
    };
    envelope.id = request.remove("id");
    match request.get("jsonrpc") {
        None | Some(Value::Null) => {}
        Some(Value::String(version)) if version == "1.0" => {}
        Some(Value::String(version)) if version == "2.0" => envelope.version = Version::V2,
        Some(Value::String(_)) => return (envelope, invalid("JSON-RPC version not supported")),
        Some(_) => return (envelope, invalid("jsonrpc field must be a string")),
    }
    let method = match request.remove("method") {
        Some(Value::String(method)) => method,
        None | Some(Value::Null) => return (envelope, invalid("Missing method")),
        Some(_) => return (envelope, invalid("Method must be a string")),
    };
    let params = match request.remove("params") {
        Some(Value::Array(list)) => Params::Positional(list),
        Some(Value::Object(map)) => Params::Named(map),
        None | Some(Value::Null) => Params::Positional(Vec::new()),
        Some(_) => return (envelope, invalid("Params must be an array or object")),
    };
    (envelope, Ok(Request { method, params }))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_reply_takes_the_form_of_the_request() {
        let (old, request) = parse(json!({"method": "x", "id": "a"}));
        assert!(request.is_ok());
        assert_eq!(
            old.reply(Ok(json!(1))).to_string(),
            r#"{"result":1,"error":null,"id":"a"}"#
        );
        let (new, _) = parse(json!({"jsonrpc": "2.0", "method": "x", "id": 7}));
        assert_eq!(
            new.clone().reply(Ok(Value::Null)).to_string(),
            r#"{"jsonrpc":"2.0","result":null,"id":7}"#
        );
        let error = RpcError::new(-8, "no");
        assert_eq!(
            new.reply(Err(error.clone())).to_string(),
            r#"{"jsonrpc":"2.0","error":{"code":-8,"message":"no"},"id":7}"#
        );
        let (bare, _) = parse(json!({"method": "x"}));
        assert!(!bare.is_notification());
        assert_eq!(
            bare.reply(Err(error)).to_string(),
            r#"{"result":null,"error":{"code":-8,"message":"no"}}"#
        );
    }

    #[test]
    fn broken_requests_are_named_and_keep_their_id() {
        let cases = [
            (json!(1), "Invalid Request object"),
            (json!({"id": 3}), "Missing method"),
            (json!({"id": 3, "method": 4}), "Method must be a string"),
            (
                json!({"id": 3, "method": "x", "params": "y"}),
                "Params must be an array or object",
            ),
            (
                json!({"id": 3, "method": "x", "jsonrpc": 2}),
                "jsonrpc field must be a string",
            ),
            (
                json!({"id": 3, "method": "x", "jsonrpc": "3.0"}),
                "JSON-RPC version not supported",
            ),
        ];
        for (value, text) in cases {
            let has_id = value.is_object();
            let (envelope, request) = parse(value);
            assert_eq!(request.unwrap_err().message, text);
            assert_eq!(envelope.id, Some(if has_id { json!(3) } else { Value::Null }));
        }
        assert!(parse(json!({"jsonrpc": "2.0", "method": "x"})).0.is_notification());
    }
}
