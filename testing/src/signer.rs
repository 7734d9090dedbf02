use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use aws_lc_rs::{
    encoding::{AsDer, Pkcs8V1Der, PublicKeyX509Der},
    rsa::KeySize,
    signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair, KeyPair, RsaKeyPair},
};
use base64::{Engine, prelude::*};
use jsonwebtoken::{Algorithm, EncodingKey, crypto, jwk::Jwk};
use serde_json::{Value, json};
use tempfile::TempDir;
use time::OffsetDateTime;

use crate::server::scratch;

pub const ISSUER: &str = "https://issuer.example";
pub const AUDIENCE: &str = "orders.example";

/// Every scope there is.
const SCOPES: &str = "orders:read orders:write activity:read operations";

/// A key pair of a test's own, and the tokens it signs: good ones, and any other.
#[derive(Clone, Debug)]
pub struct Signer {
    pub kid: String,
    algorithm: Algorithm,
    key: EncodingKey,
    pem: String,
    home: Arc<TempDir>,
}

impl Signer {
    #[must_use]
    pub fn rs256(kid: &str) -> Self {
        let pair = RsaKeyPair::generate(KeySize::Rsa2048).unwrap();
        let private: Pkcs8V1Der<'_> = pair.as_der().unwrap();
        let key = EncodingKey::from_rsa_pem(pem("PRIVATE KEY", private.as_ref()).as_bytes()).unwrap();
        Self::new(kid, Algorithm::RS256, key, &pair.public_key().as_der().unwrap())
    }

    #[must_use]
    pub fn es256(kid: &str) -> Self {
        let pair = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).unwrap();
        let key = EncodingKey::from_ec_der(pair.to_pkcs8v1().unwrap().as_ref());
        Self::new(kid, Algorithm::ES256, key, &pair.public_key().as_der().unwrap())
    }

    #[must_use]
    pub fn eddsa(kid: &str) -> Self {
        let pair = Ed25519KeyPair::generate().unwrap();
        let private: Pkcs8V1Der<'_> = pair.as_der().unwrap();
        let key = EncodingKey::from_ed_der(private.as_ref());
        Self::new(kid, Algorithm::EdDSA, key, &pair.public_key().as_der().unwrap())
    }

    fn new(kid: &str, algorithm: Algorithm, key: EncodingKey, public: &PublicKeyX509Der<'_>) -> Self {
        let home = Arc::new(scratch());
        let pem = pem("PUBLIC KEY", public.as_ref());
        std::fs::write(home.path().join("public.pem"), &pem).unwrap();
        Self { kid: kid.into(), algorithm, key, pem, home }
    }

    /// The public key, as PEM.
    #[must_use]
    pub fn public_key(&self) -> &str {
        &self.pem
    }

    #[must_use]
    pub fn public_key_file(&self) -> PathBuf {
        self.home.path().join("public.pem")
    }

    /// A folder that lives as long as the signer.
    #[must_use]
    pub fn home(&self) -> &Path {
        self.home.path()
    }

    /// The public key, as a key of a JWKS.
    #[must_use]
    pub fn jwk(&self) -> Value {
        let mut jwk = serde_json::to_value(Jwk::from_encoding_key(&self.key, self.algorithm).unwrap()).unwrap();
        jwk["kid"] = self.kid.as_str().into();
        jwk["use"] = "sig".into();
        jwk
    }

    /// A token for everything, but for what `claims` says: a claim given as null is left out.
    #[must_use]
    pub fn token(&self, claims: Value) -> String {
        self.token_with(json!({}), claims)
    }

    /// As [`Signer::token`], with other members in its header.
    #[must_use]
    pub fn token_with(&self, header: Value, claims: Value) -> String {
        let now = OffsetDateTime::now_utc().unix_timestamp();
        let good = json!({"iss": ISSUER, "aud": AUDIENCE, "sub": "tester", "exp": now + 3600, "scope": SCOPES});
        let usual = json!({"alg": format!("{:?}", self.algorithm), "typ": "JWT", "kid": self.kid});
        self.sign(&merged(usual, header).to_string(), merged(good, claims).to_string())
    }

    /// Whatever is to be signed.
    #[must_use]
    pub fn sign(&self, header: &str, payload: impl AsRef<[u8]>) -> String {
        signed(header, payload, &self.key, self.algorithm)
    }

    /// With HMAC and this secret.
    #[must_use]
    pub fn sign_with_secret(header: &str, payload: &str, secret: &[u8]) -> String {
        signed(header, payload, &EncodingKey::from_secret(secret), Algorithm::HS256)
    }
}

fn signed(header: &str, payload: impl AsRef<[u8]>, key: &EncodingKey, algorithm: Algorithm) -> String {
    let signed = format!("{}.{}", BASE64_URL_SAFE_NO_PAD.encode(header), BASE64_URL_SAFE_NO_PAD.encode(payload));
    let signature = crypto::sign(signed.as_bytes(), key, algorithm).unwrap();
    format!("{signed}.{signature}")
}

fn merged(mut all: Value, changes: Value) -> Value {
    for (name, value) in changes.as_object().unwrap() {
        all[name] = value.clone();
    }
    all.as_object_mut().unwrap().retain(|_, value| !value.is_null());
    all
}

fn pem(label: &str, der: &[u8]) -> String {
    let text = BASE64_STANDARD.encode(der);
    let lines: Vec<_> = text.as_bytes().chunks(64).map(|line| std::str::from_utf8(line).unwrap()).collect();
    format!("-----BEGIN {label}-----\n{}\n-----END {label}-----\n", lines.join("\n"))
}
