//! Who may call: HTTP Basic credentials from the cookie file or from `--rpc-auth`.
//!
//! Passwords are kept as salted HMAC-SHA256 only, in the form that Bitcoin Core's `rpcauth` uses:
//! `user:salt$hex(hmac_sha256(key = salt, password))`.

use std::fs;
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use axum::http::{HeaderMap, header};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, Mac};
use rand::RngCore;
use sha2::Sha256;
use subtle::ConstantTimeEq;

/// The user name that stands in the cookie file.
pub const COOKIE_USER: &str = "__cookie__";

/// One pair of credentials.
#[derive(Clone)]
struct Credential {
    user: String,
    salt: String,
    hmac: [u8; 32],
}

/// The credentials that a server takes.
#[derive(Clone, Default)]
pub struct Auth {
    credentials: Vec<Credential>,
}

/// Why a request is from nobody.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// It carries no credentials.
    NoLogin,
    /// Its credentials are wrong.
    WrongLogin,
}

/// An `--rpc-auth` value that does not read `user:salt$hmac`.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not of the form USER:SALT$HMAC with HMAC as 64 hex digits")]
pub struct BadRpcAuth;

impl Auth {
    /// Takes one `user:salt$hmac`.
    pub fn add_rpc_auth(&mut self, text: &str) -> Result<(), BadRpcAuth> {
        let (user, rest) = text.split_once(':').ok_or(BadRpcAuth)?;
        let (salt, digest) = rest.split_once('$').ok_or(BadRpcAuth)?;
        let mut hmac = [0; 32];
        if user.is_empty()
            || rest.contains(':')
            || digest.contains('$')
            || hex::decode_to_slice(digest, &mut hmac).is_err()
        {
            return Err(BadRpcAuth);
        }
        self.credentials.push(Credential {
            user: user.to_owned(),
            salt: salt.to_owned(),
            hmac,
        });
        Ok(())
    }

    /// Takes a user and a password, of which only a salted digest is kept.
    pub fn add_password(&mut self, user: &str, password: &str) {
        let mut salt = [0; 16];
        rand::rng().fill_bytes(&mut salt);
        let salt = hex::encode(salt);
        let hmac = keyed(&salt, password).finalize().into_bytes().into();
        self.credentials.push(Credential {
            user: user.to_owned(),
            salt,
            hmac,
        });
    }

    /// Who sent the request; an error says whether it carries credentials at all.
    pub(crate) fn check(&self, headers: &HeaderMap) -> Result<String, Refusal> {
        let value = headers.get(header::AUTHORIZATION).ok_or(Refusal::NoLogin)?;
        let login = value.to_str().ok().and_then(decode);
        let right = login.filter(|(user, password)| self.matches(user, password));
        right.map(|(user, _)| user).ok_or(Refusal::WrongLogin)
    }

    fn matches(&self, user: &str, password: &str) -> bool {
        let mut right = false;
        for credential in &self.credentials {
            let same_user = bool::from(credential.user.as_bytes().ct_eq(user.as_bytes()));
            right |= same_user && keyed(&credential.salt, password).verify_slice(&credential.hmac).is_ok();
        }
        right
    }
}

fn keyed(salt: &str, password: &str) -> Hmac<Sha256> {
    let mut mac = Hmac::<Sha256>::new_from_slice(salt.as_bytes()).expect("HMAC takes keys of every length");
    mac.update(password.as_bytes());
    mac
}

fn decode(value: &str) -> Option<(String, String)> {
    let bytes = STANDARD.decode(value.strip_prefix("Basic ")?.trim()).ok()?;
    let text = String::from_utf8(bytes).ok()?;
    let (user, password) = text.split_once(':')?;
    Some((user.to_owned(), password.to_owned()))
}

/// The cookie file of a running server; it goes away with this value.
#[derive(Debug)]
pub struct Cookie {
    path: PathBuf,
    password: String,
}

impl Cookie {
    /// Writes a fresh random password to `path`, readable by the owner only. The file appears complete or not at all.
    pub fn create(path: &Path) -> io::Result<Self> {
        let mut bytes = [0; 32];
        rand::rng().fill_bytes(&mut bytes);
        let password = hex::encode(bytes);
        write_secret(path, &format!("{COOKIE_USER}:{password}"))?;
        Ok(Self {
            path: path.to_owned(),
            password,
        })
    }

    /// Lets the cookie's user in.
    pub fn allow(&self, auth: &mut Auth) {
        auth.add_password(COOKIE_USER, &self.password);
    }
}

impl Drop for Cookie {
    fn drop(&mut self) {
        // Another process that shares the folder may have put its own cookie there since.
        let ours = format!("{COOKIE_USER}:{}", self.password);
        if fs::read_to_string(&self.path).is_ok_and(|text| text == ours) {
            let _ = fs::remove_file(&self.path);
        }
    }
}

/// Writes `text` to `path` with mode 0600, through a temporary name beside it.
pub(crate) fn write_secret(path: &Path, text: &str) -> io::Result<()> {
    let mut name = path.file_name().ok_or(io::ErrorKind::InvalidInput)?.to_owned();
    name.push(".tmp");
    let temporary = path.with_file_name(name);
    match fs::remove_file(&temporary) {
        Err(err) if err.kind() != io::ErrorKind::NotFound => return Err(err),
        _ => {}
    }
    let mut file = fs::OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&temporary)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()?;
    fs::rename(&temporary, path)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn basic(user_password: &str) -> HeaderMap {
        let value = format!("Basic {}", STANDARD.encode(user_password));
        [(header::AUTHORIZATION, value.parse().unwrap())].into_iter().collect()
    }

    #[test]
    fn rpc_auth_lines_open_with_their_password_only() {
        // HMAC-SHA256 with the key "salt" over "secret", computed by Python's hmac module.
        let digest = "98e5340f0f4f96d2b80c2a90da0d03cf46c35e9492918cc7af73d9a39efa5981";
        let mut auth = Auth::default();
        auth.add_rpc_auth(&format!("alice:salt${digest}")).unwrap();
        assert_eq!(auth.check(&basic("alice:secret")), Ok("alice".to_owned()));
        assert_eq!(auth.check(&basic("alice:Secret")), Err(Refusal::WrongLogin));
        assert_eq!(auth.check(&basic("carol:secret")), Err(Refusal::WrongLogin));
        assert_eq!(auth.check(&HeaderMap::new()), Err(Refusal::NoLogin));
        for bad in ["alice", "alice:salt", "alice:salt$zz", ":salt$00", "a:b:c$00"] {
            assert_eq!(auth.add_rpc_auth(bad), Err(BadRpcAuth), "{bad}");
        }
    }

    #[test]
    fn the_cookie_is_private_and_goes_with_its_server() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(".cookie");
        fs::write(dir.path().join(".cookie.tmp"), "left by a crash").unwrap();
        let cookie = Cookie::create(&path).unwrap();
        let text = fs::read_to_string(&path).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        let mut auth = Auth::default();
        cookie.allow(&mut auth);
        assert_eq!(auth.check(&basic(&text)), Ok(COOKIE_USER.to_owned()));
        drop(cookie);
        assert!(!path.exists());

        let first = Cookie::create(&path).unwrap();
        let second = Cookie::create(&path).unwrap();
        drop(first);
        assert!(path.exists(), "the newer server's cookie stays");
        drop(second);
        assert!(!path.exists());
    }
}
