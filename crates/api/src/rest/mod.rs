//! Core's REST interface (version 31): what everybody may know of chain and memory pool, without a login.
//!
//! A path is a resource with a format as its suffix: `.bin` for the wire encoding, `.hex` for the same in hex, or
//! `.json`. It is served at the RPC listener, when switched on, and obeys the same rules about the Host header.

mod blocks;
mod coins;
mod filters;

use std::sync::Arc;

use axum::body::Body;
use axum::http::{HeaderValue, Response, StatusCode, header};
use bytes::Bytes;
use dunlin_chain::{StoreError, View};
use serde_json::Value;

use crate::backend::BitcoinBackend;
use crate::rpc::{Params, Request, RpcError, Shared, call};

/// The longest request body: `getutxos` asks for 15 outputs at most.
pub(crate) const MAX_BODY: usize = 64 << 10;
/// The most headers that one request asks for.
const MAX_HEADERS: usize = 2000;
/// What is asked for when a request for headers does not say how many.
const DEFAULT_HEADERS: &str = "5";

/// The suffix of a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Format {
    Binary,
    Hex,
    Json,
    Unknown,
}

/// What is asked for.
struct Ask {
    bitcoin: Arc<dyn BitcoinBackend>,
    /// The path after the resource's own part, without the format.
    param: String,
    format: Format,
    query: String,
    body: Bytes,
}

/// An answer that is not the one hoped for.
#[derive(Debug, PartialEq, Eq)]
struct Refusal(StatusCode, String);

/// An answer: its content type and body.
struct Content(&'static str, Vec<u8>);

type Answer = Result<Content, Refusal>;
/// Which RPC method answers, with which arguments.
type Translated = Result<(&'static str, Vec<Value>), Refusal>;
type Translate = fn(&Ask) -> Translated;

fn bad_request(text: impl Into<String>) -> Refusal {
    Refusal(StatusCode::BAD_REQUEST, text.into())
}

fn not_found(text: impl Into<String>) -> Refusal {
    Refusal(StatusCode::NOT_FOUND, text.into())
}

fn unreadable(error: StoreError) -> Refusal {
    Refusal(StatusCode::INTERNAL_SERVER_ERROR, error.to_string())
}

impl From<RpcError> for Refusal {
    fn from(error: RpcError) -> Self {
        Self(StatusCode::INTERNAL_SERVER_ERROR, error.message)
    }
}

/// The resources, the longer of two with one beginning first.
const RESOURCES: [(&str, Resource); 14] = [
    ("/rest/tx/", Resource::Own(coins::tx)),
    ("/rest/block/notxdetails/", Resource::Own(blocks::block_without_details)),
    ("/rest/block/", Resource::Own(blocks::block)),
    ("/rest/blockpart/", Resource::Own(blocks::block_part)),
    ("/rest/blockfilter/", Resource::Own(filters::filter)),
    ("/rest/blockfilterheaders/", Resource::Own(filters::headers)),
    ("/rest/chaininfo", Resource::Rpc(chain_info)),
    ("/rest/mempool/", Resource::Rpc(mempool)),
    ("/rest/headers/", Resource::Own(blocks::headers)),
    ("/rest/getutxos", Resource::Own(coins::unspent)),
    ("/rest/deploymentinfo/", Resource::Rpc(deployments)),
    ("/rest/deploymentinfo", Resource::Rpc(deployments)),
    ("/rest/blockhashbyheight/", Resource::Own(blocks::hash_by_height)),
    ("/rest/spenttxouts/", Resource::Own(blocks::spent_outputs)),
];

/// How a resource is answered.
#[derive(Clone, Copy)]
enum Resource {
    /// By itself; it may read the disk.
    Own(fn(&Ask) -> Answer),
    /// As this RPC method answers with these arguments, in JSON only.
    Rpc(Translate),
}

/// Answers a request for `path`; `None` when there is no such resource.
pub(crate) async fn answer(shared: &Arc<Shared>, path: &str, query: &str, body: Bytes) -> Option<Response<Body>> {
    let (prefix, resource) = RESOURCES.iter().find(|(prefix, _)| path.starts_with(prefix))?;
    let (param, format) = split_format(path.strip_prefix(prefix)?);
    let Some(bitcoin) = shared.node.bitcoin.clone() else {
        return Some(refuse(not_found("The Bitcoin part of this node is switched off")));
    };
    let ask = Ask {
        bitcoin,
        param,
        format,
        query: query.to_owned(),
        body,
    };
    let answer = match *resource {
        Resource::Own(run) => tokio::task::spawn_blocking(move || run(&ask))
            .await
            .unwrap_or_else(|err| {
                tracing::error!("a REST request failed: {err}");
                Err(Refusal(StatusCode::INTERNAL_SERVER_ERROR, "Internal error".to_owned()))
            }),
        Resource::Rpc(translate) => by_rpc(shared, &ask, translate).await,
    };
    Some(match answer {
        Ok(Content(kind, body)) => respond(StatusCode::OK, kind, body),
        Err(refusal) => refuse(refusal),
    })
}

async fn by_rpc(shared: &Arc<Shared>, ask: &Ask, translate: Translate) -> Answer {
    let (method, params) = translate(ask)?;
    if ask.format != Format::Json {
        return Err(not_found("output format not found (available: json)"));
    }
    let request = Request {
        method: method.to_owned(),
        params: Params::Positional(params),
    };
    Ok(json(&call(shared, request).await?))
}

fn respond(status: StatusCode, kind: &'static str, body: Vec<u8>) -> Response<Body> {
    let mut response = Response::new(Body::from(body));
    *response.status_mut() = status;
    response
        .headers_mut()
        .insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
    response
}

fn refuse(Refusal(status, text): Refusal) -> Response<Body> {
    respond(status, "text/plain", format!("{text}\r\n").into_bytes())
}

/// The path before its format, and the format.
fn split_format(path: &str) -> (String, Format) {
    let known = path.rsplit_once('.').and_then(|(param, suffix)| {
        let format = match suffix {
            "bin" => Format::Binary,
            "hex" => Format::Hex,
            "json" => Format::Json,
            "" => Format::Unknown,
            _ => return None,
        };
        Some((param.to_owned(), format))
    });
    known.unwrap_or_else(|| (path.to_owned(), Format::Unknown))
}

fn json(value: &Value) -> Content {
    Content("application/json", format!("{value}\n").into_bytes())
}

impl Ask {
    fn view(&self) -> View {
        self.bitcoin.view()
    }

    /// The answer in the format that was asked for.
    fn reply(&self, wire: impl FnOnce() -> Vec<u8>, value: impl FnOnce() -> Result<Value, Refusal>) -> Answer {
        match self.format {
            Format::Binary => Ok(Content("application/octet-stream", wire())),
            Format::Hex => Ok(Content("text/plain", format!("{}\n", hex::encode(wire())).into_bytes())),
            Format::Json => Ok(json(&value()?)),
            Format::Unknown => Err(not_found("output format not found (available: .bin, .hex, .json)")),
        }
    }

    /// A parameter after the question mark, percent signs resolved.
    fn query(&self, name: &str) -> Option<String> {
        self.query.split('&').find_map(|pair| {
            let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
            (percent_decoded(key) == name.as_bytes()).then(|| String::from_utf8_lossy(&percent_decoded(value)).into())
        })
    }

    /// How many headers are asked for.
    fn header_count(&self, given: Option<&str>) -> Result<usize, Refusal> {
        let text = match given {
            Some(text) => text.to_owned(),
            None => self.query("count").unwrap_or_else(|| DEFAULT_HEADERS.to_owned()),
        };
        whole(&text)
            .filter(|count| (1..=MAX_HEADERS).contains(count))
            .ok_or_else(|| {
                bad_request(format!(
                    "Header count is invalid or out of acceptable range (1-{MAX_HEADERS}): {text}"
                ))
            })
    }
}

/// `%41` becomes `A`; a percent sign without two hex digits stays.
fn percent_decoded(text: &str) -> Vec<u8> {
    let mut decoded = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&first, tail)) = rest.split_first() {
        let mut byte = [0];
        match tail.split_at_checked(2) {
            Some((digits, after)) if first == b'%' && hex::decode_to_slice(digits, &mut byte).is_ok() => {
                decoded.extend(byte);
                rest = after;
            }
            _ => {
                decoded.push(first);
                rest = tail;
            }
        }
    }
    decoded
}

/// A whole number of digits alone.
fn whole<T: std::str::FromStr>(text: &str) -> Option<T> {
    (!text.starts_with('+')).then(|| text.parse().ok()).flatten()
}

/// 32 bytes in the reversed hex that people write hashes in.
fn hash<H: bitcoin::hashes::Hash<Bytes = [u8; 32]>>(text: &str) -> Result<H, Refusal> {
    let mut bytes = [0; 32];
    hex::decode_to_slice(text, &mut bytes).map_err(|_| bad_request(format!("Invalid hash: {text}")))?;
    bytes.reverse();
    Ok(H::from_byte_array(bytes))
}

fn chain_info(_ask: &Ask) -> Translated {
    Ok(("getblockchaininfo", Vec::new()))
}

fn deployments(ask: &Ask) -> Translated {
    if ask.param.is_empty() || ask.format != Format::Json {
        return Ok(("getdeploymentinfo", Vec::new()));
    }
    let block = hash(&ask.param)?;
    if ask.view().entry(&block).is_none() {
        return Err(bad_request("Block not found"));
    }
    Ok(("getdeploymentinfo", vec![ask.param.as_str().into()]))
}

fn mempool(ask: &Ask) -> Translated {
    match ask.param.as_str() {
        "info" => return Ok(("getmempoolinfo", Vec::new())),
        "contents" if ask.format != Format::Json => return Ok(("getrawmempool", Vec::new())),
        "contents" => {}
        _ => {
            let text = "Invalid URI format. Expected /rest/mempool/<info|contents>.json";
            return Err(bad_request(text));
        }
    }
    let switch = |name: &str, default: bool| match ask.query(name).as_deref() {
        None => Ok(default),
        Some("true") => Ok(true),
        Some("false") => Ok(false),
        Some(_) => Err(bad_request(format!(
            "The \"{name}\" query parameter must be either \"true\" or \"false\"."
        ))),
    };
    let (verbose, sequence) = (switch("verbose", true)?, switch("mempool_sequence", false)?);
    if verbose && sequence {
        return Err(bad_request(
            "Verbose results cannot contain mempool sequence values. (hint: set \"verbose=false\")",
        ));
    }
    Ok(("getrawmempool", vec![verbose.into(), sequence.into()]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_and_queries_are_taken_apart() {
        assert_eq!(split_format("ab.json"), ("ab".to_owned(), Format::Json));
        assert_eq!(split_format("a.b.bin"), ("a.b".to_owned(), Format::Binary));
        assert_eq!(split_format("ab.xml"), ("ab.xml".to_owned(), Format::Unknown));
        assert_eq!(split_format("ab."), ("ab".to_owned(), Format::Unknown));
        assert_eq!(split_format("ab"), ("ab".to_owned(), Format::Unknown));
        assert_eq!(percent_decoded("a%41%4"), b"aA%4");
        assert_eq!(percent_decoded("%%41"), b"%A");
        assert_eq!(whole::<u32>("007"), Some(7));
        assert_eq!(whole::<u32>("+7"), None);
    }
}
