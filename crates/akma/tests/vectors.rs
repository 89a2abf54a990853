//! Every published vector, and every decision of ours. The counts are part of the test: none drops out unnoticed.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, missing_docs)]

use std::collections::BTreeSet;
use std::path::PathBuf;

use akma::eap_aka_prime::{Keys, ck_prime_ik_prime};
use akma::{
    AKid, AKidFormat, ATidEncoding, AfId, Amf, Ck, CkPrime, Fqdn, HomeNetwork, Ik, IkPrime, KAusf, KSeaf, KdfInput,
    Milenage, PskIdentity, RoutingIndicator, Separator, ServingNetworkName, Sqn, Suci, SuciHomeKey, SuciPublicKey,
    Supi, Tuak, TuakKeyLength, TuakTagLength, UaProtocolId, UsimCredentials,
};
use keccak::Keccak;
use serde::Deserialize;
use serde::de::DeserializeOwned;

/// Asserts every vector of a file, and says how many there were.
type Exercise = fn() -> usize;

/// Every fixture file of vectors, how many it holds, and what exercises them.
const GROUPS: &[(&str, usize, Exercise)] = &[
    ("chain.json", 2, chains),
    ("eap_aka_prime.json", 2, eap_aka_prime_keys),
    ("kdf.json", 4, generic_derivations),
    ("keccak.json", 6, keccak_permutations),
    ("milenage.json", 37, milenage_sets),
    ("negative.json", 2, wrong_derivations),
    ("suci.json", 5, suci_sets),
    ("tuak.json", 12, tuak_sets),
];
const VECTORS: usize = 70;
const DECISIONS: &str = "decisions.json";

#[test]
fn every_vector_is_exercised() {
    let files: BTreeSet<String> = std::fs::read_dir(fixtures())
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| name != DECISIONS)
        .collect();
    assert_eq!(files, GROUPS.iter().map(|(file, ..)| (*file).to_owned()).collect());
    let mut total = 0;
    for (file, expected, exercise) in GROUPS {
        assert_eq!(exercise(), *expected, "{file}");
        total += expected;
    }
    assert_eq!(total, VECTORS);
}

#[test]
fn milenage_agrees_with_the_published_sets() {
    milenage_sets();
}

#[test]
fn tuak_agrees_with_the_published_sets() {
    tuak_sets();
}

#[test]
fn keccak_agrees_with_the_published_permutations() {
    keccak_permutations();
}

#[test]
fn suci_agrees_with_the_published_sets_both_ways() {
    suci_sets();
}

#[test]
fn eap_aka_prime_keys_agree_with_the_published_case() {
    eap_aka_prime_keys();
}

#[test]
fn the_generic_derivation_agrees_with_those_of_other_clauses() {
    generic_derivations();
}

#[test]
fn the_whole_chain_from_k_to_k_af_agrees() {
    chains();
}

#[test]
fn the_supi_enters_derivations_as_the_bare_imsi_and_never_with_its_prefix() {
    wrong_derivations();
    for (text, kdf_value) in [
        ("imsi-001010000000001", "001010000000001"),
        ("nai-user@example.com", "user@example.com"),
        ("gci-00-11@5gc.mnc001.mcc001.3gppnetwork.org", "00-11@5gc.mnc001.mcc001.3gppnetwork.org"),
        ("gli-aGk=@5gc.mnc001.mcc001.3gppnetwork.org", "aGk=@5gc.mnc001.mcc001.3gppnetwork.org"),
    ] {
        let supi: Supi = text.parse().unwrap();
        assert_eq!(supi.kdf_value(), kdf_value);
        assert_eq!(supi.as_str(), text);
        let k_ausf = KAusf::from_bytes([7; 32]);
        let s = |fc, label: &[u8]| KdfInput::new(fc).parameter(label).unwrap().parameter(kdf_value.as_bytes()).unwrap();
        assert_eq!(akma::k_akma(&k_ausf, &supi).expose(), &*s(0x80, b"AKMA").derive(k_ausf.expose()));
        assert_eq!(akma::a_tid(&k_ausf, &supi).expose(), &*s(0x81, b"A-TID").derive(k_ausf.expose()));
        let k_seaf = KSeaf::from_bytes([8; 32]);
        let s = KdfInput::new(0x6d).parameter(kdf_value.as_bytes()).unwrap().parameter(&[0, 0]).unwrap();
        assert_eq!(akma::k_amf(&k_seaf, &supi, &[0, 0]).expose(), &*s.derive(k_seaf.expose()));
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Fixture<T> {
    #[allow(dead_code)]
    about: String,
    vectors: Vec<T>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
#[allow(dead_code)]
struct MilenageSet {
    id: String,
    source: String,
    k: String,
    op: String,
    rand: String,
    opc: String,
    sqn: Option<Sqn>,
    amf: Option<Amf>,
    mac_a: Option<String>,
    mac_s: Option<String>,
    res: Option<String>,
    ck: Option<String>,
    ik: Option<String>,
    ak: Option<String>,
    ak_star: Option<String>,
}

fn milenage_sets() -> usize {
    let sets = load::<MilenageSet>("milenage.json");
    for set in &sets {
        let id = &set.id;
        let (k, rand) = (octets(&set.k), octets(&set.rand));
        let from_op = Milenage::from_op(&k, &octets(&set.op));
        assert_eq!(hex::encode(*from_op.opc()), set.opc, "{id}");
        for milenage in [from_op, Milenage::from_opc(&k, &octets(&set.opc))] {
            let output = milenage.f2345(&rand);
            let macs = set.sqn.zip(set.amf).map(|(sqn, amf)| {
                (hex::encode(milenage.f1(&rand, sqn, amf)), hex::encode(milenage.f1_star(&rand, sqn, amf)))
            });
            let mut compared = 0;
            let mut compare = |expected: &Option<String>, computed: Option<String>| {
                if expected.is_some() {
                    assert_eq!(*expected, computed, "{id}");
                    compared += 1;
                }
            };
            compare(&set.mac_a, macs.as_ref().map(|(mac_a, _)| mac_a.clone()));
            compare(&set.mac_s, macs.map(|(_, mac_s)| mac_s));
            compare(&set.res, Some(hex::encode(*output.res)));
            compare(&set.ck, Some(output.ck.to_hex().to_string()));
            compare(&set.ik, Some(output.ik.to_hex().to_string()));
            compare(&set.ak, Some(output.ak.to_hex().to_string()));
            compare(&set.ak_star, Some(milenage.f5_star(&rand).to_hex().to_string()));
            assert!(compared >= 2, "{id}");
        }
    }
    sets.len()
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
#[allow(dead_code)]
struct KeccakSet {
    id: String,
    source: String,
    input: String,
    output: String,
}

fn keccak_permutations() -> usize {
    let sets = load::<KeccakSet>("keccak.json");
    for set in &sets {
        let input: [u8; 200] = octets(&set.input);
        let mut lanes = [0u64; 25];
        for (lane, octets) in lanes.iter_mut().zip(input.as_chunks::<8>().0) {
            *lane = u64::from_le_bytes(*octets);
        }
        Keccak::new().with_f1600(|f1600| f1600(&mut lanes));
        let output: Vec<u8> = lanes.iter().flat_map(|lane| lane.to_le_bytes()).collect();
        assert_eq!(hex::encode(output), set.output, "{}", set.id);
    }
    sets.len()
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
#[allow(dead_code)]
struct TuakSet {
    id: String,
    source: String,
    k: String,
    top: String,
    rand: String,
    iterations: u8,
    topc: Option<String>,
    sqn: Option<Sqn>,
    amf: Option<Amf>,
    mac_octets: Option<usize>,
    res_octets: Option<usize>,
    ck_octets: Option<usize>,
    ik_octets: Option<usize>,
    mac_a: Option<String>,
    mac_s: Option<String>,
    res: Option<String>,
    ck: Option<String>,
    ik: Option<String>,
    ak: Option<String>,
    ak_star: Option<String>,
}

fn tuak_sets() -> usize {
    let tag_length = |octets| match octets {
        4 => TuakTagLength::Bits32,
        8 => TuakTagLength::Bits64,
        16 => TuakTagLength::Bits128,
        32 => TuakTagLength::Bits256,
        other => panic!("no tag has {other} octets"),
    };
    let key_length = |octets| if octets == 32 { TuakKeyLength::Bits256 } else { TuakKeyLength::Bits128 };
    let sets = load::<TuakSet>("tuak.json");
    for set in &sets {
        let id = &set.id;
        let (k, rand) = (hex::decode(&set.k).unwrap(), octets(&set.rand));
        let from_top = Tuak::from_top(&k, &octets(&set.top), set.iterations).unwrap();
        if let Some(topc) = &set.topc {
            assert_eq!(hex::encode(from_top.topc()), *topc, "{id}");
        }
        for tuak in [Tuak::from_topc(&k, from_top.topc(), set.iterations).unwrap(), from_top] {
            if let Some(mac_octets) = set.mac_octets {
                let (sqn, amf, length) = (set.sqn.unwrap(), set.amf.unwrap(), tag_length(mac_octets));
                let mac_a = tuak.f1(&rand, sqn, amf, length).unwrap();
                assert_eq!(Some(hex::encode(&*mac_a)), set.mac_a, "{id}");
                let mac_s = tuak.f1_star(&rand, sqn, amf, length).unwrap();
                assert_eq!(Some(hex::encode(&*mac_s)), set.mac_s, "{id}");
            } else {
                let ck_length = key_length(set.ck_octets.unwrap());
                let ik_length = key_length(set.ik_octets.unwrap());
                let output = tuak.f2345(&rand, tag_length(set.res_octets.unwrap()), ck_length, ik_length);
                assert_eq!(Some(hex::encode(&*output.res)), set.res, "{id}");
                assert_eq!(Some(hex::encode(&*output.ck)), set.ck, "{id}");
                assert_eq!(Some(hex::encode(&*output.ik)), set.ik, "{id}");
                assert_eq!(Some(output.ak.to_hex().to_string()), set.ak, "{id}");
                assert_eq!(Some(tuak.f5_star(&rand).to_hex().to_string()), set.ak_star, "{id}");
            }
        }
    }
    sets.len()
}

/// The intermediate values of these sets are compared where they are computed, in the crate's own unit test.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
#[allow(dead_code)]
struct SuciSet {
    id: String,
    source: String,
    scheme: String,
    supi: Supi,
    mcc: Option<String>,
    mnc: Option<String>,
    msin: Option<String>,
    home_private_key: Option<String>,
    home_public_key: Option<String>,
    ephemeral_private_key: Option<String>,
    ephemeral_public_key: Option<String>,
    shared_secret: Option<String>,
    encryption_key: Option<String>,
    initial_counter_block: Option<String>,
    initial_counter_block_published: Option<bool>,
    mac_key: Option<String>,
    plaintext: Option<String>,
    ciphertext: Option<String>,
    mac: Option<String>,
    scheme_output: String,
}

fn suci_sets() -> usize {
    const KEY_ID: u8 = 27;
    let sets = load::<SuciSet>("suci.json");
    for set in &sets {
        let id = &set.id;
        let home_network = match (&set.mcc, &set.mnc) {
            (Some(mcc), Some(mnc)) => HomeNetwork::new(mcc, mnc).unwrap(),
            // Not used for an NAI.
            _ => HomeNetwork::new("999", "99").unwrap(),
        };
        let routing_indicator = RoutingIndicator::default();
        if set.scheme == "null" {
            let suci = Suci::conceal(&set.supi, &home_network, &routing_indicator, None).unwrap();
            assert_eq!(hex::encode(suci.scheme_output()), set.scheme_output, "{id}");
            assert_eq!(suci.to_string(), format!("suci-0-274-012-0-0-0-{}", set.msin.as_ref().unwrap()));
            assert_eq!(suci.null_scheme_supi().unwrap(), set.supi, "{id}");
            continue;
        }
        let private = octets(set.home_private_key.as_ref().unwrap());
        let public = set.home_public_key.as_ref().unwrap();
        let (home_key, public_key) = match set.scheme.as_str() {
            "profile-a" => (
                SuciHomeKey::profile_a(KEY_ID, private).unwrap(),
                SuciPublicKey::profile_a(KEY_ID, octets(public)).unwrap(),
            ),
            "profile-b" => (
                SuciHomeKey::profile_b(KEY_ID, private).unwrap(),
                SuciPublicKey::profile_b(KEY_ID, octets(public)).unwrap(),
            ),
            other => panic!("{other}"),
        };
        assert_eq!(home_key.public_key(), public_key, "{id}");
        assert_eq!(hex::encode(public_key.to_bytes()), *public, "{id}");
        let ephemeral = octets(set.ephemeral_private_key.as_ref().unwrap());
        let suci = Suci::conceal_with_ephemeral(&set.supi, &home_network, &routing_indicator, &public_key, &ephemeral)
            .unwrap();
        assert_eq!(hex::encode(suci.scheme_output()), set.scheme_output, "{id}");
        let received: Suci = suci.to_string().parse().unwrap();
        assert_eq!(home_key.deconceal(&received).unwrap(), set.supi, "{id}");
    }
    sets.len()
}

#[derive(Deserialize)]
#[serde(untagged, deny_unknown_fields)]
#[allow(dead_code)]
enum EapSet {
    Prime {
        id: String,
        source: String,
        ck: String,
        ik: String,
        network_name: String,
        sqn_xor_ak: String,
        ck_prime: String,
        ik_prime: String,
    },
    Keys {
        id: String,
        source: String,
        ck_prime: String,
        ik_prime: String,
        identity: String,
        k_encr: String,
        k_aut: String,
        k_re: String,
        msk: String,
        emsk: String,
    },
}

fn eap_aka_prime_keys() -> usize {
    let sets = load::<EapSet>("eap_aka_prime.json");
    for set in &sets {
        match set {
            EapSet::Prime { ck, ik, network_name, sqn_xor_ak, ck_prime, ik_prime, .. } => {
                let (ck, ik) = (Ck::from_hex(ck).unwrap(), Ik::from_hex(ik).unwrap());
                let computed = ck_prime_ik_prime(&ck, &ik, network_name, &octets(sqn_xor_ak)).unwrap();
                assert_eq!(computed, (CkPrime::from_hex(ck_prime).unwrap(), IkPrime::from_hex(ik_prime).unwrap()));
            }
            EapSet::Keys { ck_prime, ik_prime, identity, k_encr, k_aut, k_re, msk, emsk, .. } => {
                let (ck_prime, ik_prime) = (CkPrime::from_hex(ck_prime).unwrap(), IkPrime::from_hex(ik_prime).unwrap());
                let keys = Keys::derive(&ck_prime, &ik_prime, identity);
                assert_eq!(*keys.k_encr.to_hex(), *k_encr);
                assert_eq!(*keys.k_aut.to_hex(), *k_aut);
                assert_eq!(*keys.k_re.to_hex(), *k_re);
                assert_eq!(*keys.msk.to_hex(), *msk);
                assert_eq!(*keys.emsk.to_hex(), *emsk);
                assert_eq!(*keys.k_ausf().to_hex(), emsk[..64]);
            }
        }
    }
    sets.len()
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
#[allow(dead_code)]
struct KdfSet {
    id: String,
    source: String,
    key: String,
    fc: String,
    parameters: Vec<String>,
    s: Option<String>,
    output: String,
}

fn generic_derivations() -> usize {
    let sets = load::<KdfSet>("kdf.json");
    for set in &sets {
        let [fc] = octets(&set.fc);
        let input = set
            .parameters
            .iter()
            .fold(KdfInput::new(fc), |input, parameter| input.parameter(&hex::decode(parameter).unwrap()).unwrap());
        if let Some(s) = &set.s {
            assert_eq!(hex::encode(input.as_bytes()), *s, "{}", set.id);
        }
        assert_eq!(hex::encode(*input.derive(&hex::decode(&set.key).unwrap())), set.output, "{}", set.id);
    }
    sets.len()
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
#[allow(dead_code)]
struct Chain {
    id: String,
    source: String,
    k: String,
    opc: String,
    rand: String,
    sqn: Sqn,
    amf: Amf,
    serving_network_name: ServingNetworkName,
    imsi: String,
    routing_indicator: RoutingIndicator,
    af_fqdn: Fqdn,
    ua_protocol_id: UaProtocolId,
    abba: String,
    res: String,
    ck: String,
    ik: String,
    ak: String,
    mac_a: String,
    autn: String,
    sqn_xor_ak: String,
    k_ausf: String,
    res_star: String,
    hxres_star: String,
    k_seaf: String,
    k_amf: String,
    s_k_akma: String,
    k_akma: String,
    s_a_tid: String,
    a_tid: String,
    af_id: String,
    s_k_af: String,
    k_af: String,
    auts: String,
    ck_prime: String,
    ik_prime: String,
    a_tid_base64url: String,
}

fn chains() -> usize {
    let sets = load::<Chain>("chain.json");
    for chain in &sets {
        let credentials = UsimCredentials::milenage_opc(&octets(&chain.k), &octets(&chain.opc));
        let (rand, snn) = (octets(&chain.rand), &chain.serving_network_name);
        let vector = credentials.vector(&rand, chain.sqn, chain.amf);
        assert_eq!(*vector.xres.to_hex(), chain.res);
        assert_eq!(*vector.ck.to_hex(), chain.ck);
        assert_eq!(*vector.ik.to_hex(), chain.ik);
        assert_eq!(*vector.ak.to_hex(), chain.ak);
        assert_eq!(hex::encode(vector.autn), chain.autn);
        assert_eq!(hex::encode(&vector.autn[8..]), chain.mac_a);
        assert_eq!(hex::encode(vector.sqn_xor_ak()), chain.sqn_xor_ak);

        let (k_ausf, res_star) = (vector.k_ausf(snn), vector.xres_star(snn));
        assert_eq!(*k_ausf.to_hex(), chain.k_ausf);
        assert_eq!(*res_star.to_hex(), chain.res_star);
        assert_eq!(*akma::hxres_star(&rand, &res_star).to_hex(), chain.hxres_star);
        let k_seaf = akma::k_seaf(&k_ausf, snn);
        assert_eq!(*k_seaf.to_hex(), chain.k_seaf);
        let supi: Supi = format!("imsi-{}", chain.imsi).parse().unwrap();
        assert_eq!(*akma::k_amf(&k_seaf, &supi, &octets(&chain.abba)).to_hex(), chain.k_amf);

        let s =
            |fc, label: &[u8]| KdfInput::new(fc).parameter(label).unwrap().parameter(chain.imsi.as_bytes()).unwrap();
        assert_eq!(hex::encode(s(0x80, b"AKMA").as_bytes()), chain.s_k_akma);
        assert_eq!(hex::encode(s(0x81, b"A-TID").as_bytes()), chain.s_a_tid);
        let (k_akma, a_tid) = (akma::k_akma(&k_ausf, &supi), akma::a_tid(&k_ausf, &supi));
        assert_eq!(*k_akma.to_hex(), chain.k_akma);
        assert_eq!(*a_tid.to_hex(), chain.a_tid);

        let af_id = AfId::new(chain.af_fqdn.clone(), chain.ua_protocol_id);
        assert_eq!(hex::encode(af_id.to_bytes()), chain.af_id);
        let s = KdfInput::new(0x82).parameter(&af_id.to_bytes()).unwrap();
        assert_eq!(hex::encode(s.as_bytes()), chain.s_k_af);
        assert_eq!(*akma::k_af(&k_akma, &af_id).to_hex(), chain.k_af);

        let auts = credentials.auts(&rand, chain.sqn);
        assert_eq!(hex::encode(auts), chain.auts);
        assert_eq!(credentials.verify_auts(&rand, &auts).unwrap(), chain.sqn);
        let primes = ck_prime_ik_prime(&vector.ck, &vector.ik, snn.as_str(), &vector.sqn_xor_ak()).unwrap();
        assert_eq!(primes, (CkPrime::from_hex(&chain.ck_prime).unwrap(), IkPrime::from_hex(&chain.ik_prime).unwrap()));

        let home_network = HomeNetwork::from_realm(&snn.as_str().replace("5G:", "."), "").unwrap();
        assert_eq!(home_network.serving_network_name(), *snn);
        let base64url = AKidFormat { a_tid_encoding: ATidEncoding::Base64Url, ..AKidFormat::default() };
        let a_kid = base64url.format(&chain.routing_indicator, &a_tid, &home_network);
        let username = format!("{}.{}", chain.routing_indicator, chain.a_tid_base64url);
        assert_eq!(a_kid.as_str().split_once('@').unwrap().0, username);
        assert_eq!(base64url.parts(&a_kid).unwrap().a_tid, a_tid);
    }
    sets.len()
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
#[allow(dead_code)]
struct Wrong {
    id: String,
    source: String,
    k_ausf: String,
    supi_parameter: String,
    fc: String,
    with_label: bool,
    k_akma_wrong: String,
    k_akma_right: String,
}

fn wrong_derivations() -> usize {
    let sets = load::<Wrong>("negative.json");
    for wrong in &sets {
        let k_ausf = KAusf::from_hex(&wrong.k_ausf).unwrap();
        // The wrong value is what the mistake gives, so that the comparison below means something.
        let [fc] = octets(&wrong.fc);
        let mut input = KdfInput::new(fc);
        if wrong.with_label {
            input = input.parameter(b"AKMA").unwrap();
        }
        let input = input.parameter(wrong.supi_parameter.as_bytes()).unwrap();
        assert_eq!(hex::encode(*input.derive(k_ausf.expose())), wrong.k_akma_wrong, "{}", wrong.id);

        let imsi = wrong.supi_parameter.trim_start_matches("imsi-");
        let k_akma = akma::k_akma(&k_ausf, &Supi::from_imsi(imsi).unwrap());
        assert_eq!(*k_akma.to_hex(), wrong.k_akma_right, "{}", wrong.id);
        assert_ne!(*k_akma.to_hex(), wrong.k_akma_wrong, "{}", wrong.id);
    }
    sets.len()
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Decisions {
    #[allow(dead_code)]
    about: String,
    decisions: Vec<serde_json::Map<String, serde_json::Value>>,
}

#[test]
fn encodings_that_no_clause_settles_are_as_decided() {
    let decisions: Decisions = read(DECISIONS);
    assert_eq!(decisions.decisions.len(), 3);
    for decision in &decisions.decisions {
        let text = |name: &str| decision[name].as_str().unwrap();
        match text("id") {
            "text form of the A-KID" => {
                let routing_indicator = text("routing_indicator").parse().unwrap();
                let a_tid = akma::ATid::from_hex(text("a_tid")).unwrap();
                let home_network = HomeNetwork::new(text("mcc"), text("mnc")).unwrap();
                let a_kid = AKid::format(&routing_indicator, &a_tid, &home_network);
                assert_eq!(a_kid.as_str(), text("text"));
                let parts = a_kid.parts().unwrap();
                assert_eq!((parts.routing_indicator, parts.a_tid), (routing_indicator, a_tid));
                assert!(parts.home_network.has_same_realm(&home_network));
            }
            "separator of the PSK identity" => {
                let a_kid: AKid = text("a_kid").parse().unwrap();
                assert_eq!(PskIdentity::encode(&a_kid, Separator::default()), text("text").as_bytes());
                for separator in [Separator::Semicolon, Separator::Dot, Separator::None] {
                    assert_eq!(PskIdentity::parse(&PskIdentity::encode(&a_kid, separator)).unwrap(), a_kid);
                }
            }
            "text form of the AF_ID" => {
                let af_id = AfId::new(text("af_fqdn").parse().unwrap(), text("ua_protocol_id").parse().unwrap());
                assert_eq!(af_id.to_string(), text("text"));
                assert_eq!(text("text").parse::<AfId>().unwrap(), af_id);
            }
            other => panic!("no test pins {other}"),
        }
    }
}

fn fixtures() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures")
}

fn read<T: DeserializeOwned>(file: &str) -> T {
    serde_json::from_slice(&std::fs::read(fixtures().join(file)).unwrap()).unwrap()
}

fn load<T: DeserializeOwned>(file: &str) -> Vec<T> {
    read::<Fixture<T>>(file).vectors
}

fn octets<const N: usize>(text: &str) -> [u8; N] {
    hex::decode(text).unwrap().try_into().unwrap()
}
