//! Which URLs and addresses are refused: all that are not plainly the Internet's.

use clap::Parser;
use proptest::prelude::*;

use super::*;

#[derive(Parser)]
struct Settings {
    #[command(flatten)]
    config: HttpBundlesConfig,
}

fn guard(flags: &[&str]) -> Guard {
    Guard::new(&Settings::parse_from([&["proc"], flags].concat()).config)
}

fn check(guard: &Guard, url: &str) -> Result<(), Refused> {
    guard.check(&url.parse().unwrap())
}

#[test]
fn a_url_has_to_be_plain_https_to_the_internet() {
    let guard = guard(&[]);
    for url in [
        "https://example.org",
        "https://example.org:8443/x?y=z",
        "https://8.8.8.8/",
        "https://[2606:4700::1111]/",
    ] {
        assert_eq!(check(&guard, url), Ok(()), "{url}");
    }
    for (url, refused) in [
        ("http://example.org/", Refused::Scheme),
        ("ftp://example.org/", Refused::Scheme),
        ("file:///etc/passwd", Refused::Scheme),
        ("https://user@example.org/", Refused::Extra),
        ("https://:pass@example.org/", Refused::Extra),
        ("https://example.org/#x", Refused::Extra),
        ("https://example.org:22/", Refused::Port),
        ("https://example.org:80/", Refused::Port),
        ("https://127.0.0.1/", Refused::Address),
        ("https://127.1/", Refused::Address),
        ("https://0x7f000001/", Refused::Address),
        ("https://2130706433/", Refused::Address),
        ("https://0177.0.0.1/", Refused::Address),
        ("https://0/", Refused::Address),
        ("https://169.254.169.254/latest/meta-data", Refused::Address),
        ("https://168.63.129.16/", Refused::Address),
        ("https://100.100.100.200/", Refused::Address),
        ("https://192.168.0.1:8443/", Refused::Address),
        ("https://[::1]/", Refused::Address),
        ("https://[::]/", Refused::Address),
        ("https://[::ffff:10.0.0.1]/", Refused::Address),
        ("https://[::ffff:8.8.8.8]/", Refused::Address),
        ("https://[64:ff9b::a00:1]/", Refused::Address),
        ("https://[fd00:ec2::254]/", Refused::Address),
        ("https://[fe80::1]/", Refused::Address),
        ("https://[2002:7f00:1::]/", Refused::Address),
        ("https://[2001:0:7f00:1::]/", Refused::Address),
        ("https://[ff02::1]/", Refused::Address),
        ("https://255.255.255.255/", Refused::Address),
    ] {
        assert_eq!(check(&guard, url), Err(refused), "{url}");
    }
    assert_eq!(
        check(&self::guard(&["--proc-http-bundles-ports", "22,80"]), "https://example.org:22/"),
        Ok(())
    );
}

#[test]
fn loopback_is_for_development_and_nothing_else_inward_is() {
    let guard = guard(&["--proc-http-bundles-loopback", "true"]);
    for url in [
        "http://127.0.0.1:1234/",
        "http://[::1]:1/",
        "https://localhost:9/",
        "https://example.org/",
    ] {
        assert_eq!(check(&guard, url), Ok(()), "{url}");
    }
    for url in
        ["http://10.0.0.1/", "http://169.254.169.254/", "http://[fe80::1]/", "http://0.0.0.0/"]
    {
        assert_eq!(check(&guard, url), Err(Refused::Address), "{url}");
    }
}

#[tokio::test]
async fn a_name_is_refused_by_where_it_leads() {
    let name = || "localhost".parse::<Name>().unwrap();
    let refused = guard(&[]).resolve(name()).await.err().unwrap();
    assert_eq!(refused.downcast_ref(), Some(&Refused::Address));
    let found = guard(&["--proc-http-bundles-loopback", "true"]).resolve(name()).await;
    assert!(found.ok().unwrap().all(|addr| addr.ip().is_loopback()));
    let url = "https://localhost/".parse().unwrap();
    assert_eq!(guard(&[]).check_name(&url).await, Err(Refused::Address));
}

proptest! {
    #[test]
    fn no_disguise_of_an_address_is_global(bits in any::<u32>()) {
        let v4 = Ipv4Addr::from(bits);
        let [a, b, c, d] = v4.octets().map(u16::from);
        let (high, low) = (a << 8 | b, c << 8 | d);
        for disguised in [
            v4.to_ipv6_mapped(),
            v4.to_ipv6_compatible(),
            Ipv6Addr::new(0x64, 0xff9b, 0, 0, 0, 0, high, low),
            Ipv6Addr::new(0x64, 0xff9b, 1, 0, 0, 0, high, low),
            Ipv6Addr::new(0x2002, high, low, 0, 0, 0, 0, 1),
            Ipv6Addr::new(0x2001, 0, high, low, 0, 0, !high, !low),
        ] {
            prop_assert!(!is_global(disguised.into()), "{}", disguised);
        }
        let special = v4.is_private() || v4.is_loopback() || v4.is_link_local() || v4.is_broadcast()
            || v4.is_documentation() || v4.is_multicast() || v4.is_unspecified();
        prop_assert!(!(special && is_global(v4.into())), "{}", v4);
    }

    #[test]
    fn no_local_ipv6_is_global(bits in any::<u128>()) {
        let v6 = Ipv6Addr::from(bits);
        let special = v6.is_unique_local() || v6.is_unicast_link_local() || v6.is_multicast() || v6.is_loopback();
        prop_assert!(!(special && is_global(v6.into())), "{}", v6);
        let local = Ipv6Addr::from(bits >> 7 | 0xfc << 120);
        prop_assert!(!is_global(local.into()), "{}", local);
    }
}
