//! An OpenID Connect issuer: keys made for the test, discovery over HTTP, and any token that a test asks for.

use std::sync::{
    Arc, LazyLock, Mutex,
    atomic::{AtomicBool, AtomicUsize, Ordering},
};

use aws_lc_rs::{
    rand::SystemRandom,
    rsa::KeySize,
    signature::{
        self, ECDSA_P256_SHA256_FIXED_SIGNING, ECDSA_P384_SHA384_FIXED_SIGNING, EcdsaKeyPair,
        KeyPair, RsaKeyPair,
    },
};
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    task::JoinSet,
};

/// Who the API is and who signs users in, as tokens name them.
pub(crate) const AUDIENCE: &str = "https://parley.example/api";
pub(crate) const CLIENT: &str = "parley-web";

pub(crate) fn base64(bytes: impl AsRef<[u8]>) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

/// A private key.
#[derive(Clone)]
pub(crate) struct Signer {
    pub(crate) kid: String,
    key: Arc<PrivateKey>,
}

enum PrivateKey {
    Rsa(RsaKeyPair),
    Ec(EcdsaKeyPair, &'static str),
}

/// Making one takes long, and a key is only as different as its name says.
static RSA: LazyLock<[Arc<PrivateKey>; 2]> = LazyLock::new(|| {
    let make = || RsaKeyPair::generate(KeySize::Rsa2048).expect("a key");
    [(); 2].map(|()| Arc::new(PrivateKey::Rsa(make())))
});

impl Signer {
    /// Returns the first or the second RSA key under a name.
    pub(crate) fn rsa(which: usize, kid: &str) -> Self {
        Self { kid: kid.into(), key: RSA[which].clone() }
    }

    pub(crate) fn ec(kid: &str) -> Self {
        let key = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).expect("a key");
        Self { kid: kid.into(), key: Arc::new(PrivateKey::Ec(key, "P-256")) }
    }

    pub(crate) fn ec384(kid: &str) -> Self {
        let key = EcdsaKeyPair::generate(&ECDSA_P384_SHA384_FIXED_SIGNING).expect("a key");
        Self { kid: kid.into(), key: Arc::new(PrivateKey::Ec(key, "P-384")) }
    }

    /// Returns the public key as issuers list it.
    pub(crate) fn jwk(&self) -> Value {
        match &*self.key {
            PrivateKey::Rsa(key) => {
                let (n, e) = (key.public_key().modulus(), key.public_key().exponent());
                let [n, e] = [n, e].map(|number| base64(number.big_endian_without_leading_zero()));
                json!({"kty": "RSA", "use": "sig", "kid": self.kid, "n": n, "e": e})
            }
            PrivateKey::Ec(key, curve) => {
                let point = &key.public_key().as_ref()[1..];
                let (x, y) = point.split_at(point.len() / 2);
                json!({"kty": "EC", "kid": self.kid, "crv": curve, "x": base64(x), "y": base64(y)})
            }
        }
    }

    /// Returns the algorithm that the key is for.
    pub(crate) fn algorithm(&self) -> &'static str {
        match &*self.key {
            PrivateKey::Rsa(_) => "RS256",
            PrivateKey::Ec(_, "P-384") => "ES384",
            PrivateKey::Ec(..) => "ES256",
        }
    }

    /// Signs as an algorithm says, if the key can; else as it can.
    fn sign(&self, algorithm: &str, text: &str) -> Vec<u8> {
        let random = SystemRandom::new();
        match &*self.key {
            PrivateKey::Rsa(key) => {
                let padding: &dyn signature::RsaEncoding = match algorithm {
                    "RS384" => &signature::RSA_PKCS1_SHA384,
                    "RS512" => &signature::RSA_PKCS1_SHA512,
                    "PS256" => &signature::RSA_PSS_SHA256,
                    _ => &signature::RSA_PKCS1_SHA256,
                };
                let mut signed = vec![0; key.public_modulus_len()];
                key.sign(padding, &random, text.as_bytes(), &mut signed).expect("a signature");
                signed
            }
            PrivateKey::Ec(key, _) => {
                key.sign(&random, text.as_bytes()).expect("a signature").as_ref().to_vec()
            }
        }
    }

    /// Returns a token of exactly this head and these claims, each a JSON text.
    pub(crate) fn token(&self, head: &str, claims: &str) -> String {
        let signed = format!("{}.{}", base64(head), base64(claims));
        let algorithm = serde_json::from_str::<Value>(head).unwrap_or_default()["alg"].clone();
        let signature = self.sign(algorithm.as_str().unwrap_or_default(), &signed);
        format!("{signed}.{}", base64(signature))
    }
}

/// The issuer; it ends when dropped.
pub(crate) struct Issuer {
    pub(crate) url: String,
    shared: Arc<Shared>,
    _running: JoinSet<()>,
}

struct Shared {
    url: String,
    jwks: Mutex<String>,
    /// Further fields of what discovery says.
    discovery: Mutex<Value>,
    fetches: AtomicUsize,
    is_away: AtomicBool,
}

impl Issuer {
    pub(crate) async fn start(keys: &[&Signer]) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let url = format!("http://{}/realms/chat", listener.local_addr().expect("an address"));
        let shared = Arc::new(Shared {
            url: url.clone(),
            jwks: Mutex::default(),
            discovery: Mutex::new(json!({})),
            fetches: AtomicUsize::new(0),
            is_away: AtomicBool::new(false),
        });
        let (serving, mut running) = (shared.clone(), JoinSet::new());
        running.spawn(async move {
            let mut connections = JoinSet::new();
            loop {
                let (socket, _) = listener.accept().await.expect("a connection");
                if !serving.is_away.load(Ordering::SeqCst) {
                    connections.spawn(serving.clone().answer(socket));
                }
            }
        });
        let issuer = Self { url, shared, _running: running };
        issuer.publish(keys);
        issuer
    }

    /// Lists these keys from now on.
    pub(crate) fn publish(&self, keys: &[&Signer]) {
        let keys: Vec<_> = keys.iter().map(|key| key.jwk()).collect();
        self.publish_text(&json!({"keys": keys}).to_string());
    }

    /// Gives this text for a list of keys.
    pub(crate) fn publish_text(&self, text: &str) {
        text.clone_into(&mut self.shared.jwks.lock().expect("no panic"));
    }

    /// Says something else in discovery.
    pub(crate) fn discover(&self, fields: Value) {
        *self.shared.discovery.lock().expect("no panic") = fields;
    }

    pub(crate) fn set_away(&self, is_away: bool) {
        self.shared.is_away.store(is_away, Ordering::SeqCst);
    }

    /// Returns how often the keys were fetched.
    pub(crate) fn fetches(&self) -> usize {
        self.shared.fetches.load(Ordering::SeqCst)
    }

    /// Returns the flags of a service that trusts this issuer.
    pub(crate) fn flags(&self) -> Vec<&str> {
        let mut flags = vec!["--auth-mode", "oidc", "--oidc-issuer", &self.url];
        flags.extend(["--oidc-audience", AUDIENCE, "--oidc-client-id", CLIENT]);
        flags
    }
}

impl Shared {
    async fn answer(self: Arc<Self>, mut socket: TcpStream) {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            match socket.read_u8().await {
                Ok(byte) => head.push(byte),
                Err(_) => return,
            }
        }
        let head = String::from_utf8_lossy(&head);
        let (status, body) = match head.split(' ').nth(1) {
            Some("/realms/chat/.well-known/openid-configuration") => {
                let mut body =
                    json!({"issuer": self.url, "jwks_uri": format!("{}/jwks", self.url)});
                if let Value::Object(fields) = &*self.discovery.lock().expect("no panic") {
                    body.as_object_mut().expect("an object").extend(fields.clone());
                }
                ("200 OK", body.to_string())
            }
            Some("/realms/chat/jwks") => {
                self.fetches.fetch_add(1, Ordering::SeqCst);
                ("200 OK", self.jwks.lock().expect("no panic").clone())
            }
            Some("/realms/chat/moved") => ("302 Found\r\nLocation: jwks", String::new()),
            _ => ("404 Not Found", String::new()),
        };
        let length = body.len();
        let answer = format!(
            "HTTP/1.1 {status}\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{body}"
        );
        let _ = socket.write_all(answer.as_bytes()).await;
    }
}
