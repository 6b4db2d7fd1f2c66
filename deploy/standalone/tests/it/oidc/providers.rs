//! Tokens in the shape of each provider's: taken with the settings that `docs/sign-in.md` names, and refused when one thing
//! about them is another.

use serde_json::{Value, json};

use super::{
    issuer::{Issuer, Signer},
    me,
    pair::{Draft, Pair, now},
    ready,
};
use crate::support::{Answer, Parley};

/// A provider: settings beside the issuer, and the tokens that it gives to a user of a client.
struct Provider {
    name: &'static str,
    flags: Vec<String>,
    tokens: fn(&Setup, &str, &str) -> [Value; 2],
    /// The id of the user `ada`, exact or by its prefix.
    user: &'static str,
    /// True if the head of its access tokens says `at+jwt`.
    is_at_jwt: bool,
}

/// The names of a deployment.
struct Setup {
    issuer: String,
    alias: String,
}

/// Something about one token that is otherwise.
type ChangeOne = fn(&mut Draft);

const API: &str = "https://chat.example/api";
const WEB: &str = "web-client";
const MOBILE: &str = "mobile-client";
const TENANT: &str = "9188040d-6c67-4c5b-b112-36a304b66dad";

fn claims(more: Value) -> Value {
    let mut claims = json!({"iat": now(), "exp": now() + 3600});
    if let (Value::Object(claims), Value::Object(more)) = (&mut claims, more) {
        claims.extend(more);
    }
    claims
}

fn auth0(setup: &Setup, user: &str, client: &str) -> [Value; 2] {
    let user = format!("google-oauth2|{user}");
    [
        claims(json!({
            "iss": setup.issuer, "sub": user, "aud": [API, format!("{}userinfo", setup.issuer)], "azp": client,
            "scope": "openid profile offline_access", "https://chat.example/roles": ["admin"],
        })),
        claims(json!({
            "iss": setup.issuer, "sub": user, "aud": client, "name": "Ada", "nickname": "ada", "sid": "s1",
            "updated_at": "2026-11-30T12:00:00.000Z",
        })),
    ]
}

fn cognito(setup: &Setup, user: &str, client: &str) -> [Value; 2] {
    [
        claims(json!({
            "iss": setup.issuer, "sub": user, "client_id": client, "token_use": "access", "version": 2,
            "scope": "openid profile", "username": user, "jti": "j1", "cognito:groups": ["admin"], "auth_time": now(),
        })),
        claims(json!({
            "iss": setup.issuer, "sub": user, "aud": client, "token_use": "id", "cognito:username": user,
            "name": "Ada", "auth_time": now(), "cognito:groups": ["admin"],
        })),
    ]
}

fn okta(setup: &Setup, user: &str, client: &str) -> [Value; 2] {
    let id = format!("00u{user}4711");
    [
        claims(json!({
            "iss": setup.issuer, "sub": format!("{user}@example.org"), "uid": id, "aud": "api://default",
            "cid": client, "scp": ["openid", "offline_access"], "ver": 1, "jti": "AT.1", "roles": ["admin"],
        })),
        claims(json!({
            "iss": setup.issuer, "sub": id, "aud": client, "ver": 1, "jti": "ID.1", "amr": ["pwd"],
            "idp": "00o1", "nonce": "n", "name": "Ada", "preferred_username": format!("{user}@example.org"),
        })),
    ]
}

fn entra_ids(user: &str, client: &str) -> (String, String) {
    (format!("00000000-0000-0000-66f3-{user}"), format!("AAAAAA{user}{client}"))
}

/// A registration for the API, whose tokens are v1, and one for the client: `sub` is another in each.
fn entra_v1(setup: &Setup, user: &str, client: &str) -> [Value; 2] {
    let (oid, sub) = entra_ids(user, client);
    [
        claims(json!({
            "iss": setup.alias, "sub": format!("{sub}-api"), "oid": oid, "tid": TENANT, "aud": "api://chat",
            "appid": client, "appidacr": "0", "scp": "access", "ver": "1.0", "upn": "ada@example.org",
            "nbf": now(), "roles": ["admin"],
        })),
        claims(json!({
            "iss": setup.issuer, "sub": sub, "oid": oid, "tid": TENANT, "aud": client, "ver": "2.0",
            "nonce": "n", "name": "Ada", "preferred_username": "ada@example.org", "nbf": now(),
        })),
    ]
}

/// One registration for both, with v2 tokens: the audience of the API is the client itself.
fn entra_v2(setup: &Setup, user: &str, client: &str) -> [Value; 2] {
    let (oid, sub) = entra_ids(user, client);
    [
        claims(json!({
            "iss": setup.issuer, "sub": sub, "oid": oid, "tid": TENANT, "aud": client, "azp": client,
            "azpacr": "0", "scp": "access", "ver": "2.0", "nbf": now(), "roles": ["admin"],
        })),
        claims(json!({
            "iss": setup.issuer, "sub": sub, "oid": oid, "tid": TENANT, "aud": client, "ver": "2.0",
            "name": "Ada", "nbf": now(),
        })),
    ]
}

fn keycloak(setup: &Setup, user: &str, client: &str) -> [Value; 2] {
    let user = format!("f:5d3f:DOM\\{user}");
    [
        claims(json!({
            "iss": setup.issuer, "sub": user, "aud": [API, "account"], "azp": client, "typ": "Bearer",
            "scope": "openid profile", "realm_access": {"roles": ["offline_access", "admin"]}, "sid": "s1",
        })),
        claims(json!({
            "iss": setup.issuer, "sub": user, "aud": client, "azp": client, "typ": "ID", "nonce": "n",
            "name": "Ada", "preferred_username": "ada", "sid": "s1",
        })),
    ]
}

/// RFC 9068, as `oidc-provider` and others have it.
fn rfc9068(setup: &Setup, user: &str, client: &str) -> [Value; 2] {
    [
        claims(json!({
            "iss": setup.issuer, "sub": user, "aud": client, "client_id": client, "jti": "j1", "roles": ["admin"],
        })),
        claims(
            json!({"iss": setup.issuer, "sub": user, "aud": client, "name": "Ada", "nonce": "n"}),
        ),
    ]
}

fn providers() -> Vec<Provider> {
    let flags = |text: &str| text.split(' ').map(str::to_owned).collect::<Vec<_>>();
    let clients = format!("--oidc-client-id {WEB},{MOBILE}");
    vec![
        Provider {
            name: "Auth0",
            flags: flags(&format!(
                "{clients} --oidc-audience {API} --oidc-roles-claim https://chat.example/roles"
            )),
            tokens: auth0,
            user: "google-oauth2|ada",
            is_at_jwt: false,
        },
        Provider {
            name: "Cognito",
            flags: flags(&format!(
                "{clients} --oidc-audience {WEB},{MOBILE} --oidc-audience-claim client_id --oidc-roles-claim cognito:groups"
            )),
            tokens: cognito,
            user: "ada",
            is_at_jwt: false,
        },
        Provider {
            name: "Okta",
            flags: flags(&format!(
                "{clients} --oidc-audience api://default --oidc-user-claim uid,sub"
            )),
            tokens: okta,
            user: "00uada4711",
            is_at_jwt: false,
        },
        Provider {
            name: "Entra ID v1",
            flags: flags(&format!("{clients} --oidc-audience api://chat --oidc-user-claim oid")),
            tokens: entra_v1,
            user: "00000000-0000-0000-66f3-ada",
            is_at_jwt: false,
        },
        Provider {
            name: "Entra ID v2",
            flags: flags(&format!(
                "{clients} --oidc-audience {WEB},{MOBILE} --oidc-user-claim oid"
            )),
            tokens: entra_v2,
            user: "00000000-0000-0000-66f3-ada",
            is_at_jwt: false,
        },
        Provider {
            name: "Keycloak",
            flags: flags(&format!(
                "{clients} --oidc-audience {API} --oidc-roles-claim /realm_access/roles"
            )),
            tokens: keycloak,
            user: "oidc:",
            is_at_jwt: false,
        },
        Provider {
            name: "RFC 9068 with the client as the audience",
            flags: flags(&format!("{clients} --oidc-audience {WEB},{MOBILE}")),
            tokens: rfc9068,
            user: "ada",
            is_at_jwt: true,
        },
    ]
}

impl Provider {
    fn pair(&self, setup: &Setup, signer: &Signer, user: &str, client: &str) -> Pair {
        let [access, id] = (self.tokens)(setup, user, client);
        let mut pair = Pair { access: Draft::new(signer, access), id: Draft::new(signer, id) };
        if self.is_at_jwt {
            pair.access.head["typ"] = "at+jwt".into();
        }
        pair
    }
}

/// Returns every pair that is to be refused, made of good ones.
fn refused(provider: &Provider, setup: &Setup, signer: &Signer) -> Vec<(&'static str, Pair)> {
    let good = || provider.pair(setup, signer, "ada", WEB);
    let graces = provider.pair(setup, signer, "grace", WEB);
    let foreign = provider.pair(setup, signer, "ada", "foreign-client");
    let mut cases = vec![
        ("both of another client", foreign.clone()),
        ("the access token of another client", Pair { access: foreign.access.clone(), ..good() }),
        ("the ID token of another client", Pair { id: foreign.id.clone(), ..good() }),
        ("the ID token as both", Pair { access: good().id, ..good() }),
        ("the access token as both", Pair { id: good().access, ..good() }),
        ("each in the other's place", Pair { access: good().id, id: good().access }),
        ("the access token of another user", Pair { access: graces.access.clone(), ..good() }),
        ("the ID token of another user", Pair { id: graces.id.clone(), ..good() }),
    ];
    let mut changed = |name, change: &dyn Fn(&mut Pair)| {
        let mut pair = good();
        change(&mut pair);
        cases.push((name, pair));
    };
    changed("the access token for another API", &|pair| {
        pair.access.claims["aud"] = "https://other.example/api".into();
    });
    changed("the access token of another issuer", &|pair| {
        pair.access.claims["iss"] = "https://other.example/".into();
    });
    changed("the ID token of another issuer", &|pair| {
        pair.id.claims["iss"] = "https://other.example/".into();
    });
    for claim in ["azp", "client_id", "cid", "appid"] {
        changed("another client in one of the claims for it", &|pair| {
            pair.access.claims[claim] = "foreign-client".into();
        });
    }
    changed("the access token is over", &|pair| pair.access.claims["exp"] = (now() - 1).into());
    changed("the ID token has another audience", &|pair| pair.id.claims["aud"] = API.into());
    // Where the client is the audience, only this tells the kinds apart.
    changed("nothing says that it grants access", &|pair| {
        pair.access.head["typ"] = "JWT".into();
        let claims = pair.access.claims.as_object_mut().expect("claims");
        for claim in ["scp", "scope", "token_use"] {
            claims.remove(claim);
        }
        claims.insert("aud".into(), WEB.into());
    });
    cases
}

#[tokio::test]
async fn tokens_of_each_provider_are_taken_with_its_settings_and_with_nothing_else_changed() {
    let signer = Signer::rsa(0, "key-1");
    for provider in providers() {
        let issuer = Issuer::start(&[&signer]).await;
        let setup =
            Setup { issuer: issuer.url.clone(), alias: format!("https://sts.example/{TENANT}/") };
        let mut flags = vec!["--auth-mode", "oidc", "--oidc-issuer", &issuer.url];
        flags.extend(["--oidc-issuer-aliases", &setup.alias]);
        flags.extend(provider.flags.iter().map(String::as_str));
        let parley = Parley::start_with(&flags).await;
        let good = provider.pair(&setup, &signer, "ada", WEB);
        ready(&parley, &good).await;
        for client in [WEB, MOBILE] {
            let pair = provider.pair(&setup, &signer, "ada", client);
            let answer = me(&parley, &pair).await;
            assert_eq!(answer.status, 200, "{} {client}: {answer:?}", provider.name);
            let (user, name) = (&answer.body["user"], &answer.body["name"]);
            let user = user.as_str().expect("a user");
            assert!(user.starts_with(provider.user), "{}: {user}", provider.name);
            assert!(provider.user == "oidc:" || user == provider.user, "{}: {user}", provider.name);
            assert_eq!(
                (name, &answer.body["roles"]),
                (&json!("Ada"), &json!(["admin"])),
                "{}",
                provider.name
            );
        }
        for (case, pair) in refused(&provider, &setup, &signer) {
            let answer = me(&parley, &pair).await;
            assert_eq!(answer.status, 401, "{}: {case}: {answer:?}", provider.name);
        }
        // The refusals had their own reasons.
        me(&parley, &good).await.is(200);
    }
}

#[tokio::test]
async fn an_alias_that_no_setting_names_is_another_issuer() {
    let signer = Signer::ec("key-1");
    let issuer = Issuer::start(&[&signer]).await;
    let setup = Setup { issuer: issuer.url.clone(), alias: "https://sts.example/".into() };
    let flags =
        ["--oidc-issuer", &issuer.url, "--oidc-client-id", WEB, "--oidc-audience", "api://chat"];
    let flags = [&["--auth-mode", "oidc", "--oidc-user-claim", "oid"][..], &flags].concat();
    let parley = Parley::start_with(&flags).await;
    let provider =
        providers().into_iter().find(|one| one.name == "Entra ID v1").expect("it is there");
    let mut known = provider.pair(&setup, &signer, "ada", WEB);
    known.access.claims["iss"] = issuer.url.clone().into();
    ready(&parley, &known).await;
    let unknown = provider.pair(&setup, &signer, "ada", WEB);
    me(&parley, &unknown).await.refused(401, "unauthenticated");
}

fn google(setup: &Setup, user: &str, client: &str) -> Value {
    claims(json!({
        "iss": setup.alias, "sub": user, "aud": client, "azp": client, "hd": "example.org", "name": "Ada",
        "email": "ada@example.org", "email_verified": true, "at_hash": "HK6E_P6Dh8Y93mRNtsDB1Q", "roles": ["admin"],
    }))
}

#[tokio::test]
async fn an_id_token_alone_signs_in_without_a_role_and_only_with_the_required_claim() {
    let signer = Signer::rsa(0, "key-1");
    let issuer = Issuer::start(&[&signer]).await;
    let setup = Setup { issuer: issuer.url.clone(), alias: "accounts.google.com".into() };
    let flags = ["--auth-mode", "oidc", "--oidc-issuer", &issuer.url, "--oidc-client-id", WEB];
    let more = ["--oidc-issuer-aliases", &setup.alias, "--oidc-id-token-only", "true"];
    let required = ["--oidc-required-claim", "hd=example.org"];
    let parley = Parley::start_with(&[&flags[..], &more, &required].concat()).await;
    let show = async |draft: &Draft| {
        let request = parley.client().request("GET", "/api/auth/me").bearer_auth(draft.sign());
        Answer::to(request).await
    };
    let good = Draft::new(&signer, google(&setup, "110169484474386276334", WEB));
    crate::support::eventually("the keys", async || show(&good).await.status == 200).await;
    let body = show(&good).await.is(200);
    assert_eq!(body["user"], "110169484474386276334");
    assert_eq!((&body["name"], &body["roles"]), (&json!("Ada"), &json!([])));
    let changes: [(&str, ChangeOne); 13] = [
        ("no domain, as of a private account", |draft| {
            draft.claims.as_object_mut().expect("claims").remove("hd");
        }),
        ("another domain", |draft| draft.claims["hd"] = "example.org.evil.example".into()),
        ("another client", |draft| draft.claims["aud"] = "foreign-client".into()),
        ("another client's party", |draft| draft.claims["azp"] = "foreign-client".into()),
        ("another issuer", |draft| {
            draft.claims["iss"] = "https://accounts.google.com.evil.example".into();
        }),
        ("many audiences and no party", |draft| {
            draft.claims["aud"] = json!([WEB, "other"]);
            draft.claims.as_object_mut().expect("claims").remove("azp");
        }),
        ("an access token by its scope", |draft| draft.claims["scope"] = "openid".into()),
        ("an access token by its scopes", |draft| draft.claims["scp"] = json!(["openid"])),
        ("an access token by its use", |draft| draft.claims["token_use"] = "access".into()),
        ("an access token by its type", |draft| draft.claims["typ"] = "Bearer".into()),
        ("an access token by its head", |draft| draft.head["typ"] = "at+jwt".into()),
        ("no time", |draft| draft.claims["exp"] = (now() - 1).into()),
        ("no user", |draft| draft.claims["sub"] = "".into()),
    ];
    for (case, change) in changes {
        let mut draft = good.clone();
        change(&mut draft);
        let answer = show(&draft).await;
        assert_eq!(answer.status, 401, "{case}: {answer:?}");
    }
}

#[tokio::test]
async fn an_id_that_is_reserved_or_odd_becomes_a_derived_one_that_stays_and_is_shown_by_name() {
    let signer = Signer::ec("key-1");
    let issuer = Issuer::start(&[&signer]).await;
    let parley = Parley::start_with(&issuer.flags()).await;
    ready(&parley, &Pair::new(&issuer, &signer, "ada")).await;
    let long = "x".repeat(255);
    let subjects = [
        "slack:U1",
        "Slack:U1",
        "oidc:ada",
        "deleted:ada",
        "f:5d3f:DOM\\ada",
        "CN=ada,O=Example",
        "ada lovelace/../",
        "https://id.example/ada",
        "\u{e4}d\u{e4}",
        "ada\u{202e}",
        &long,
    ];
    let mut seen = std::collections::HashSet::new();
    for subject in subjects {
        let mut pair = Pair::new(&issuer, &signer, subject);
        let body = me(&parley, &pair).await.is(200);
        let user = body["user"].as_str().expect("a user").to_owned();
        assert!(user.starts_with("oidc:") && user.len() == 57, "{subject}: {user}");
        assert_ne!(user, subject);
        assert!(
            body["name"].as_str().expect("a name").ends_with("'s name") || subject.len() > 100,
            "{body}"
        );
        // The same again, in another token, without a name.
        pair.id.claims.as_object_mut().expect("claims").remove("name");
        let again = me(&parley, &pair).await.is(200);
        assert_eq!(again["user"], user.as_str(), "{subject}");
        assert!(!again["name"].as_str().expect("a name").contains('\u{202e}'), "{again}");
        assert!(seen.insert(user), "{subject}");
        // To show a derived id is not to be it.
        let derived = Pair::new(&issuer, &signer, again["user"].as_str().expect("a user"));
        assert_ne!(me(&parley, &derived).await.is(200)["user"], again["user"], "{subject}");
    }
    // Found as a member by that id, and shown by name.
    let ada = Pair::new(&issuer, &signer, "ada");
    let new = ada.request(&parley.client(), "POST", "/api/chat/projects");
    let project = Answer::to(new.json(&json!({"name": "\u{202e}Test\u{200b}"}))).await.is(201);
    assert_eq!(project["name"], "Test");
    let mut odd = Pair::new(&issuer, &signer, "DOM\\grace");
    odd.id.claims["name"] = "Grace".into();
    let user = me(&parley, &odd).await.is(200)["user"].clone();
    let path = format!(
        "/api/chat/projects/{}/members/{}",
        project["id"].as_str().expect("an id"),
        user.as_str().expect("a user")
    );
    let put = ada.request(&parley.client(), "PUT", &path).json(&json!({"role": "member"}));
    let member = Answer::to(put).await.is(200);
    assert_eq!((&member["user"], &member["name"]), (&user, &json!("Grace")));
}
