//! Messages signed by a key, and checked by its address.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bitcoin::address::AddressData;
use bitcoin::secp256k1::{Message, Secp256k1};
use bitcoin::sign_message::{MessageSignature, signed_msg_hash};
use bitcoin::{NetworkKind, PrivateKey};
use dunlin_chain::Network;

use super::address::address;
use super::error::{INVALID_ADDRESS_OR_KEY, RpcError, TYPE_ERROR};
use super::method::{Answer, Call};

/// A private key in the form that wallets export, of this network.
pub(crate) fn private_key(text: &str, network: Network) -> Option<PrivateKey> {
    let key = PrivateKey::from_wif(text).ok()?;
    (key.network == NetworkKind::from(network.to_bitcoin())).then_some(key)
}

pub(crate) fn signmessagewithprivkey(call: &Call) -> Answer {
    let invalid = || RpcError::new(INVALID_ADDRESS_OR_KEY, "Invalid private key");
    let key = private_key(call.str(0)?, call.shared.node.network).ok_or_else(invalid)?;
    let digest = Message::from_digest(*signed_msg_hash(call.str(1)?).as_ref());
    let signature = Secp256k1::new().sign_ecdsa_recoverable(&digest, &key.inner);
    let signature = MessageSignature::new(signature, key.compressed);
    Ok(STANDARD.encode(signature.serialize()).into())
}

pub(crate) fn verifymessage(call: &Call) -> Answer {
    let (text, signature, message) = (call.str(0)?, call.str(1)?, call.str(2)?);
    let invalid = || RpcError::new(INVALID_ADDRESS_OR_KEY, "Invalid address");
    let address = address(text, call.shared.node.network).ok_or_else(invalid)?;
    let AddressData::P2pkh { pubkey_hash } = address.to_address_data() else {
        return Err(RpcError::new(TYPE_ERROR, "Address does not refer to key"));
    };
    let malformed = |_| RpcError::new(TYPE_ERROR, "Malformed base64 encoding");
    let signature = STANDARD.decode(signature).map_err(malformed)?;
    let signer = MessageSignature::from_slice(&signature).ok().and_then(|signature| {
        signature
            .recover_pubkey(&Secp256k1::new(), signed_msg_hash(message))
            .ok()
    });
    Ok(signer.is_some_and(|key| key.pubkey_hash() == pubkey_hash).into())
}
