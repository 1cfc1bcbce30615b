//! A key that the flock holds, and payments that it signs.

use anyhow::Context;
use bitcoin::hashes::Hash;
use bitcoin::secp256k1::{Message, Secp256k1, SecretKey};
use bitcoin::sighash::{EcdsaSighashType, SighashCache};
use bitcoin::{
    Address, Amount, CompressedPublicKey, KnownHrp, OutPoint, ScriptBuf, Sequence, Transaction, TxIn, TxOut, Txid,
    Witness, absolute, consensus, transaction,
};
use serde_json::json;

use crate::client::Client;

/// What a payment leaves to the miner; far above the lowest fee for its size.
const FEE: Amount = Amount::from_sat(2_000);

/// An output that the flock's key can spend.
pub(super) struct Coin {
    outpoint: OutPoint,
    value: Amount,
}

impl Coin {
    /// The coinbase output of the block at `height`.
    pub(super) fn coinbase(client: &Client, height: u32) -> anyhow::Result<Self> {
        let hash = client.call("getblockhash", json!([height]))?;
        let raw = client.call("getblock", json!([hash, 0]))?;
        let block: bitcoin::Block =
            consensus::encode::deserialize_hex(raw.as_str().context("getblock answers with hex")?)?;
        let coinbase = block.txdata.first().context("a block has a coinbase")?;
        let value = coinbase.output.first().context("a coinbase has an output")?.value;
        Ok(Self {
            outpoint: OutPoint::new(coinbase.compute_txid(), 0),
            value,
        })
    }
}

/// A key pair and its pay-to-witness-public-key-hash address (BIP 84's kind of output).
pub(super) struct Key {
    secret: SecretKey,
    public: CompressedPublicKey,
}

impl Key {
    /// The flock's one key. It guards nothing but play money on a chain of its own.
    pub(super) fn first() -> anyhow::Result<Self> {
        let secret = SecretKey::from_slice(&[0x64; 32])?;
        let public = CompressedPublicKey(secret.public_key(&Secp256k1::new()));
        Ok(Self { secret, public })
    }

    pub(super) fn address(&self) -> anyhow::Result<String> {
        Ok(Address::p2wpkh(&self.public, KnownHrp::Regtest).to_string())
    }

    fn script_pubkey(&self) -> ScriptBuf {
        ScriptBuf::new_p2wpkh(&self.public.wpubkey_hash())
    }

    /// Signs a transaction that spends `coin` back to this key; returns it in hex, and its output.
    pub(super) fn pay(&self, coin: &Coin) -> anyhow::Result<(String, Coin)> {
        let value = coin.value.checked_sub(FEE).context("the coin covers the fee")?;
        let mut transaction = Transaction {
            version: transaction::Version::TWO,
            lock_time: absolute::LockTime::ZERO,
            input: vec![TxIn {
                previous_output: coin.outpoint,
                script_sig: ScriptBuf::new(),
                sequence: Sequence::ENABLE_RBF_NO_LOCKTIME,
                witness: Witness::new(),
            }],
            output: vec![TxOut {
                value,
                script_pubkey: self.script_pubkey(),
            }],
        };
        let sighash = SighashCache::new(&transaction).p2wpkh_signature_hash(
            0,
            &self.script_pubkey(),
            coin.value,
            EcdsaSighashType::All,
        )?;
        let message = Message::from_digest(sighash.to_byte_array());
        let signature = bitcoin::ecdsa::Signature::sighash_all(Secp256k1::new().sign_ecdsa(&message, &self.secret));
        transaction.input[0].witness = Witness::p2wpkh(&signature, &self.public.0);
        let txid: Txid = transaction.compute_txid();
        let change = Coin {
            outpoint: OutPoint::new(txid, 0),
            value,
        };
        Ok((consensus::encode::serialize_hex(&transaction), change))
    }
}
