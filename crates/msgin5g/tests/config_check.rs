//! `msgin5g config check`: what is wrong with a file is told with the file, the key, and what would be right.
#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

mod common;

use std::path::PathBuf;

use common::msgin5g;

/// A configuration of kind `kind` in a folder of its own, and a place for a policy file.
struct Files {
    kind: &'static str,
    config: PathBuf,
    policy: PathBuf,
    _folder: tempfile::TempDir,
}

impl Files {
    fn new(kind: &'static str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let (config, policy) = (folder.path().join("function.toml"), folder.path().join("policy.toml"));
        Self { kind, config, policy, _folder: folder }
    }

    /// What `config check` says of the configuration: nothing of a right one.
    fn told(&self, config: &str) -> Option<String> {
        std::fs::write(&self.config, config).unwrap();
        let output = msgin5g().args(["config", "check", "--kind", self.kind]).arg(&self.config).output().unwrap();
        let told = String::from_utf8(output.stderr).unwrap();
        match output.status.code() {
            Some(0) => None,
            Some(1) => Some(told),
            code => panic!("{code:?}: {told}"),
        }
    }

    /// That it is told with the file, and in these words.
    fn assert_told(&self, config: &str, words: &str) {
        let told = self.told(config).unwrap_or_else(|| panic!("taken for right: {config}"));
        let file = self.config.to_str().unwrap();
        assert!(told.contains(file) && told.contains(words), "expected {words} of {config}: {told}");
    }

    /// The same of a policy file, whose own name is told.
    fn assert_policy_told(&self, config: &str, policy: &str, words: &str) {
        std::fs::write(&self.policy, policy).unwrap();
        let told = self.told(config).unwrap_or_else(|| panic!("taken for right: {policy}"));
        let file = format!("{}{words}", self.policy.display());
        assert!(told.contains(&file), "expected {file} of {policy}: {told}");
    }

    /// That each of these policies is right.
    fn assert_policies_right(&self, config: &str, policies: &[&str]) {
        for policy in policies {
            std::fs::write(&self.policy, policy).unwrap();
            assert_eq!(self.told(config), None, "{policy}");
        }
    }
}

const TLS: &str = "tls = { certificate = 'c', key = 'k', ca = 'a' }\n";

#[test]
fn a_wrong_entry_of_a_configuration_function_is_told_with_its_key_and_what_would_be_right() {
    let files = Files::new("configuration");
    let base = format!("listen = '127.0.0.1:0'\ndata = 'd'\n{TLS}");
    let by_tls = "[authorization]\nmode = 'tls'\n";
    let coap =
        "[coap]\nfqdn = 'cm.example'\nserver_address = 'coaps+tcp://msgin5g.example/msgin5g'\naanf = 'https://aanf'\n";
    let good = format!("{base}{by_tls}{coap}");
    assert_eq!(files.told(&good), None);

    let changed = |from: &str, to: &str| {
        assert!(good.contains(from), "{from}");
        good.replace(from, to)
    };
    for (config, words) in [
        // What is missing, misspelled, or of another type.
        (changed("data = 'd'\n", ""), "missing field `data`"),
        (changed("listen = '127.0.0.1:0'", "listen = 'localhost'"), "listen: invalid socket address"),
        (changed("data = 'd'", "dta = 'd'"), "unknown field `dta`"),
        (changed("key = 'k', ", ""), "tls: missing field `key`"),
        (format!("{good}segment_sise = 7\n"), "coap.segment_sise: unknown field `segment_sise`"),
        (format!("{good}segment_size = 'large'\n"), "coap.segment_size: invalid type: string"),
        (changed("'cm.example'", "'a b'"), "coap.fqdn: "),
        (format!("{base}[provisioner]\n"), "provisioner: invalid type: map, expected a sequence"),
        (format!("{good}[[provisioner]]\nnf_instance = 'x'\n"), "unknown field `nf_instance`"),
        (format!("{good}[tables\n"), " (line 10, column 8): unclosed table"),
        // What would let nobody in, or the wrong ones.
        (
            format!("{base}{coap}"),
            "authorization.issuer: there is none, and no peer with mode \"tls\": nobody could get in; name",
        ),
        (format!("{good}[[provisioner]]\n"), "provisioner[0] needs nf_instance_id or dns_name"),
        (format!("{good}[[reader]]\ndns_name = 'a'\n[[reader]]\n"), "reader[1] needs nf_instance_id or dns_name"),
        (format!("{base}{by_tls}leeway_seconds = 31\n"), "authorization.leeway_seconds is 30 at most"),
        (
            format!("{base}{by_tls}[[authorization.issuer]]\nnf_instance_id = ''\nkeys = 'k'\n"),
            "authorization.issuer[0].nf_instance_id is empty: give the NF instance ID of the NRF",
        ),
        (
            format!(
                "{base}{by_tls}[[authorization.nds_ip]]\nlisten = '127.0.0.1:0'\nnetworks = []\nprotected_by = 'x'\n"
            ),
            "authorization.nds_ip[0].networks is empty: name those that are protected",
        ),
        // What no UE could use.
        (changed("coaps+tcp://", "coaps://"), "coap.server_address must be coaps+tcp://FQDN[:PORT]/PATH"),
        (format!("{good}segment_size = 0\n"), "coap.segment_size must be 1 or more"),
        (
            changed("'https://aanf'", "'http://aanf'"),
            "coap.aanf must be an https URL, \"nrf\", or \"nrf, \" and an https URL",
        ),
        (changed("'https://aanf'", "'nrf'"), "coap.aanf is \"nrf\", and there is no section [nrf]"),
        (
            format!("{good}aanf_routes = [{{ routing_indicators = ['1'], root = 'aanf' }}]\n"),
            "coap.aanf_routes: root must be an https URI",
        ),
        (
            format!("{good}aanf_routes = [{{ routing_indicators = [], root = 'https://a' }}]\n"),
            "coap.aanf_routes: routing_indicators must not be empty",
        ),
        (
            format!("{good}[coap.notifications]\nnotifier = []\n"),
            "coap.notifications.notifier needs nf_instance_id or dns_name",
        ),
        (format!("{good}[coap.limits]\nconnections_max = 0\n"), "coap.limits.connections_max must be 1 or more"),
        (
            format!("{good}[coap.limits]\nconnections_per_a_kid_max = 0\n"),
            "coap.limits.connections_per_a_kid_max must be 1 or more",
        ),
        (
            format!("{good}[coap.limits]\nrevalidation_seconds = 0\n"),
            "coap.limits.revalidation_seconds must be 1 second to 100 years",
        ),
        (format!("{good}[tables]\npage_max = 0\n"), "tables.page_max must be 1 or more"),
        (format!("{good}[nrf]\nroot = 'http://nrf'\n"), "nrf.root must be an https URI without query"),
        (
            format!("{good}[nrf]\nroot = 'https://nrf'\n[nrf.limits]\nheart_beat_seconds = 0\n"),
            "nrf.limits.heart_beat_seconds must be 1 to ",
        ),
    ] {
        files.assert_told(&config, words);
    }
}

#[test]
fn a_wrong_entry_of_a_policy_file_is_told_with_that_file_the_key_and_what_would_be_right() {
    let files = Files::new("configuration");
    let config = format!(
        "policy = {:?}\nlisten = '127.0.0.1:0'\ndata = 'd'\n{TLS}authorization = {{ mode = 'tls' }}\n",
        files.policy
    );
    files.assert_told(&config, "policy.toml: No such file");
    files.assert_policies_right(&config, &["", "[[provisioner]]\ndns_name = 'a'\n[[reader]]\nnf_instance_id = 'b'\n"]);
    for (policy, words) in [
        ("[[provisioner]]\n", ": provisioner[0] needs nf_instance_id or dns_name"),
        ("[[reader]]\ndns_name = 'a'\n[[reader]]\n", ": reader[1] needs nf_instance_id or dns_name"),
        ("[[provisioners]]\ndns_name = 'a'\n", " (line 1, column 3): unknown field `provisioners`"),
        ("[[reader]]\ndns = 'a'\n", " (line 2, column 1): unknown field `dns`"),
        ("[[reader]]\ndns_name = 7\n", " (line 2, column 12): invalid type: integer"),
        ("reader = 'a'\n", " (line 1, column 10): invalid type: string"),
        ("[[reader\n", " (line 1, column "),
        ("listen = '127.0.0.1:0'\n", " (line 1, column 1): unknown field `listen`"),
    ] {
        files.assert_policy_told(&config, policy, words);
    }
    // The entries stand in one place.
    files.assert_told(
        &format!("{config}[[reader]]\ndns_name = 'a'\n"),
        "policy: the file holds every [[provisioner]] and [[reader]]",
    );

    let files = Files::new("aanf");
    let config = format!(
        "policy = {:?}\nlisten = '127.0.0.1:0'\ndata = 'd'\n{TLS}authorization = {{ mode = 'tls' }}\n",
        files.policy
    );
    files.assert_told(&config, "policy.toml: No such file");
    let af = "[[af]]\ndns_name = 'a'\n";
    files.assert_policies_right(
        &config,
        &["", &format!("{af}fqdns = ['af.example']\n"), &format!("{af}may_register = true\n")],
    );
    for (policy, words) in [
        ("[[af]]\nfqdns = ['a.example']\n".to_owned(), ": af[0] needs nf_instance_id or dns_name"),
        (af.to_owned(), ": af[0] may do nothing: give it fqdns, may_register or may_provision"),
        (format!("{af}may_register = true\n").repeat(2), ": af[0] names the same peer as another entry"),
        (format!("{af}fqdn = 'a.example'\n"), " (line 3, column 1): unknown field `fqdn`"),
        (format!("{af}fqdns = 'a.example'\n"), " (line 3, column 9): invalid type: string"),
        (format!("{af}fqdns = ['a b']\n"), " (line 3, column "),
        ("kaf_lifetime_seconds = 1\n".to_owned(), " (line 1, column 1): unknown field `kaf_lifetime_seconds`"),
    ] {
        files.assert_policy_told(&config, &policy, words);
    }
    files.assert_told(&format!("{config}{af}may_register = true\n"), "policy: the file holds every [[af]]");
}
