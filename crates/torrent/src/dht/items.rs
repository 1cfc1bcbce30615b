//! Small values kept for others (BEP 44): immutable ones under their hash, mutable ones under a key and a salt.

use std::collections::BTreeMap;
use std::time::Duration;

use dunlin_peer::Now;
use ed25519_dalek::{Signature, Signer, SigningKey, VerifyingKey};
use sha1::{Digest, Sha1};

use super::krpc::{Fault, Put, Signed};
use super::node_id::NodeId;

/// The longest bencoded value.
pub const MAX_VALUE: usize = 1_000;
/// The longest salt.
pub const MAX_SALT: usize = 64;
/// Items kept.
const MAX_ITEMS: usize = 700;
/// An item that nobody put again for this long is forgotten.
const EXPIRY: Duration = Duration::from_secs(2 * 60 * 60);

const TOO_BIG: Fault = Fault(205, "value too big");
const BAD_SIGNATURE: Fault = Fault(206, "invalid signature");
const SALT_TOO_BIG: Fault = Fault(207, "salt too big");
const CAS_MISMATCH: Fault = Fault(301, "the item has another sequence number");
const OLD_SEQUENCE: Fault = Fault(302, "a newer item is here");
const FULL: Fault = Fault(202, "no room");

/// A value with its proof.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Item {
    pub(crate) value: Vec<u8>,
    pub(crate) signed: Option<Signed>,
}

impl Item {
    /// Signs a value. The value must be bencoded.
    pub(crate) fn sign(key: &SigningKey, salt: &[u8], sequence: i64, value: Vec<u8>) -> Self {
        let signature = key.sign(&signed_bytes(salt, sequence, &value)).to_bytes();
        let signed = Signed {
            key: key.verifying_key().to_bytes(),
            salt: salt.to_vec(),
            sequence,
            signature,
        };
        Self {
            value,
            signed: Some(signed),
        }
    }

    /// Where the item belongs in the key space.
    pub(crate) fn target(&self) -> NodeId {
        match &self.signed {
            None => NodeId(Sha1::digest(&self.value).into()),
            Some(signed) => mutable_target(&signed.key, &signed.salt),
        }
    }

    /// Whether sizes and signature are in order.
    pub(crate) fn check(&self) -> Result<(), Fault> {
        if self.value.len() > MAX_VALUE {
            return Err(TOO_BIG);
        }
        let Some(signed) = &self.signed else {
            return Ok(());
        };
        if signed.salt.len() > MAX_SALT {
            return Err(SALT_TOO_BIG);
        }
        let bytes = signed_bytes(&signed.salt, signed.sequence, &self.value);
        let signature = Signature::from_bytes(&signed.signature);
        VerifyingKey::from_bytes(&signed.key)
            .and_then(|key| key.verify_strict(&bytes, &signature))
            .map_err(|_| BAD_SIGNATURE)
    }

    /// The sequence number of a mutable item.
    pub(crate) fn sequence(&self) -> Option<i64> {
        self.signed.as_ref().map(|signed| signed.sequence)
    }
}

/// Where the items of a key and a salt are.
pub(crate) fn mutable_target(key: &[u8; 32], salt: &[u8]) -> NodeId {
    NodeId(Sha1::new().chain_update(key).chain_update(salt).finalize().into())
}

/// What is signed: the pieces of a bencoded dictionary, without its frame.
fn signed_bytes(salt: &[u8], sequence: i64, value: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    if !salt.is_empty() {
        bytes.extend_from_slice(format!("4:salt{}:", salt.len()).as_bytes());
        bytes.extend_from_slice(salt);
    }
    bytes.extend_from_slice(format!("3:seqi{sequence}e1:v").as_bytes());
    bytes.extend_from_slice(value);
    bytes
}

/// What we keep for others.
#[derive(Debug, Default)]
pub(crate) struct Items {
    items: BTreeMap<NodeId, (Item, Now)>,
}

impl Items {
    pub(crate) fn get(&self, target: &NodeId) -> Option<&Item> {
        self.items.get(target).map(|(item, _)| item)
    }

    /// Stores a value, or says why not.
    pub(crate) fn put(&mut self, now: Now, put: Put) -> Result<(), Fault> {
        let item = Item {
            value: put.value,
            signed: put.signed,
        };
        item.check()?;
        let target = item.target();
        if let (Some(known), Some(new)) = (self.get(&target), item.sequence()) {
            let old = known.sequence().unwrap_or(i64::MIN);
            if put.cas.is_some_and(|cas| cas != old) {
                return Err(CAS_MISMATCH);
            }
            if new < old || (new == old && known.value != item.value) {
                return Err(OLD_SEQUENCE);
            }
        }
        if !self.items.contains_key(&target) && self.items.len() >= MAX_ITEMS {
            return Err(FULL);
        }
        self.items.insert(target, (item, now));
        Ok(())
    }

    /// Forgets what nobody keeps alive.
    pub(crate) fn expire(&mut self, now: Now) {
        self.items.retain(|_, (_, at)| now.since(*at) < EXPIRY);
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    const KEY: &str = "77ff84905a91936367c01360803104f92432fcd904a43511876df5cdf3e7e548";
    const VALUE: &[u8] = b"12:Hello World!";

    fn mutable(salt: &[u8], signature: &str) -> Item {
        let mut key = [0; 32];
        hex::decode_to_slice(KEY, &mut key).unwrap();
        let mut bytes = [0; 64];
        hex::decode_to_slice(signature, &mut bytes).unwrap();
        Item {
            value: VALUE.to_vec(),
            signed: Some(Signed {
                key,
                salt: salt.to_vec(),
                sequence: 1,
                signature: bytes,
            }),
        }
    }

    /// The three test vectors of BEP 44.
    #[test]
    fn the_vectors_of_bep_44_hold() {
        let plain = mutable(
            b"",
            "305ac8aeb6c9c151fa120f120ea2cfb923564e11552d06a5d856091e5e853cff\
             1260d3f39e4999684aa92eb73ffd136e6f4f3ecbfda0ce53a1608ecd7ae21f01",
        );
        assert_eq!(plain.check(), Ok(()));
        assert_eq!(plain.target().to_string(), "4a533d47ec9c7d95b1ad75f576cffc641853b750");
        let salted = mutable(
            b"foobar",
            "6834284b6b24c3204eb2fea824d82f88883a3d95e8b4a21b8c0ded553d17d17d\
             df9a8a7104b1258f30bed3787e6cb896fca78c58f8e03b5f18f14951a87d9a08",
        );
        assert_eq!(salted.check(), Ok(()));
        assert_eq!(salted.target().to_string(), "411eba73b6f087ca51a3795d9c8c938d365e32c1");
        let immutable = Item {
            value: VALUE.to_vec(),
            signed: None,
        };
        assert_eq!(
            immutable.target().to_string(),
            "e5f96f6f38320f0f33959cb4d3d656452117aadb"
        );
    }

    #[test]
    fn what_we_sign_holds_and_nothing_else_does() {
        let key = SigningKey::from_bytes(&[7; 32]);
        let item = Item::sign(&key, b"salt", 3, VALUE.to_vec());
        assert_eq!(item.check(), Ok(()));
        let broken = |break_it: &dyn Fn(&mut Item)| {
            let mut item = item.clone();
            break_it(&mut item);
            item.check()
        };
        assert_eq!(broken(&|item| item.value[4] ^= 1), Err(BAD_SIGNATURE));
        assert_eq!(
            broken(&|item| item.signed.as_mut().unwrap().sequence += 1),
            Err(BAD_SIGNATURE)
        );
        assert_eq!(
            broken(&|item| item.signed.as_mut().unwrap().salt.push(0)),
            Err(BAD_SIGNATURE)
        );
        assert_eq!(broken(&|item| item.value = vec![b'i'; 1001]), Err(TOO_BIG));
        assert_eq!(
            broken(&|item| item.signed.as_mut().unwrap().salt = vec![0; 65]),
            Err(SALT_TOO_BIG)
        );
    }

    #[test]
    fn newer_items_replace_older_ones() {
        let key = SigningKey::from_bytes(&[7; 32]);
        let start = Now::from_unix_secs(0);
        let mut items = Items::default();
        let mut put = |sequence, value: &[u8], cas| {
            let item = Item::sign(&key, b"", sequence, value.to_vec());
            let put = Put {
                value: item.value,
                signed: item.signed,
                cas,
            };
            items.put(start, put)
        };
        assert_eq!(put(2, b"i1e", None), Ok(()));
        assert_eq!(put(2, b"i1e", None), Ok(()), "keeping it alive");
        assert_eq!(put(2, b"i2e", None), Err(OLD_SEQUENCE));
        assert_eq!(put(1, b"i1e", None), Err(OLD_SEQUENCE));
        assert_eq!(put(3, b"i3e", Some(1)), Err(CAS_MISMATCH));
        assert_eq!(put(3, b"i3e", Some(2)), Ok(()));
        let target = mutable_target(key.verifying_key().as_bytes(), b"");
        assert_eq!(items.get(&target).unwrap().value, b"i3e");
        items.expire(start + EXPIRY);
        assert!(items.get(&target).is_none());
    }
}
