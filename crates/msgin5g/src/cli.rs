//! The command line: every command and option, with the help text people read.

use std::{path::PathBuf, time::Duration};

use clap::{Args, Parser, Subcommand, ValueEnum};

use crate::{
    client_command::{DiscardArgs, ServeArgs, SubscribeArgs, UnsubscribeArgs, UpdateArgs},
    lab::LabArgs,
};

/// MSGin5G: messages for massive IoT, secured by the SIM.
#[derive(Debug, Parser)]
#[command(name = "msgin5g", version, propagate_version = true, arg_required_else_help = true)]
pub(crate) struct Cli {
    /// Print data as JSON, one value a line
    #[arg(long, global = true)]
    pub(crate) json: bool,
    /// What to log to standard error: a level, or directives such as `info,server=debug` [default: RUST_LOG, else warn; info for network functions]
    #[arg(long, global = true, value_name = "FILTER")]
    pub(crate) log: Option<String>,
    /// Form of log lines
    #[arg(long, global = true, value_enum, default_value = "text")]
    pub(crate) log_format: LogFormat,
    /// What to do.
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// Form of log lines.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum LogFormat {
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Run a whole network on this machine: core, server, subscribers
    Lab(LabArgs),
    /// Run the MSGin5G Server
    Server(FunctionArgs),
    /// Run the AKMA Anchor Function
    Aanf(FunctionArgs),
    /// Run the MSGin5G Configuration Function
    Configuration(FunctionArgs),
    /// Run NEF and CAPIF core function
    Exposure(FunctionArgs),
    /// Be an MSGin5G Client: authenticate, register, send, receive
    Client {
        /// What the client does.
        #[command(subcommand)]
        command: ClientCommand,
    },
    /// Provision subscribers at the lab's UDM
    Subscriber {
        /// What to do with subscribers.
        #[command(subcommand)]
        command: SubscriberCommand,
    },
    /// Provision which UE (SUPI or GPSI) may use which UE Service ID
    Association {
        /// What to do with associations.
        #[command(subcommand)]
        command: AssociationCommand,
    },
    /// Provision groups: who belongs to them, who may send to them
    Group {
        /// What to do with groups.
        #[command(subcommand)]
        command: GroupCommand,
    },
    /// Derive keys the way SIM, home network and application functions do
    Keys {
        /// What to derive.
        #[command(subcommand)]
        command: KeysCommand,
    },
    /// Measure load, latency, memory and durability, beside mosquitto
    Bench(bench::Arguments),
    /// Work with configuration files
    Config {
        /// What to do.
        #[command(subcommand)]
        command: ConfigCommand,
    },
    /// Print the completion script of a shell
    Completions {
        /// The shell
        #[arg(value_enum)]
        shell: clap_complete::Shell,
    },
    /// Write the manual pages
    Man {
        /// Directory for the pages; made if missing
        #[arg(long, value_name = "DIR")]
        out: PathBuf,
    },
}

impl Command {
    /// The log filter when the user gives none: network functions tell what they do, commands only what is wrong.
    pub(crate) fn default_log(&self) -> &'static str {
        match self {
            Command::Server(_) | Command::Aanf(_) | Command::Configuration(_) | Command::Exposure(_) => "info",
            // The demo tells of every refusal itself.
            Command::Lab(arguments) if arguments.demo => "error",
            _ => "warn",
        }
    }
}

/// Arguments of a network function.
#[derive(Args, Debug)]
pub(crate) struct FunctionArgs {
    /// Configuration file (TOML); every key can be overridden as MSGIN5G_SECTION__KEY
    #[arg(long, value_name = "FILE")]
    pub(crate) config: PathBuf,
}

/// Arguments of every command that acts as a client.
#[derive(Args, Debug)]
pub(crate) struct ProfileArgs {
    /// The client's profile (TOML); `msgin5g client profile` writes one
    #[arg(long, value_name = "FILE", env = "MSGIN5G_PROFILE")]
    pub(crate) profile: PathBuf,
    /// Give up when the server is not reached within this time
    #[arg(long, value_name = "DURATION", value_parser = duration, default_value = "30s")]
    pub(crate) timeout: Duration,
}

/// What a client does.
#[derive(Debug, Subcommand)]
pub(crate) enum ClientCommand {
    /// Write a profile for one subscriber of a lab
    Profile(ProfileFromLabArgs),
    /// Run primary authentication and keep the AKMA keys
    Authenticate(ProfileArgs),
    /// Ask the Configuration Function who this client is and where its server is
    Configure(ProfileArgs),
    /// Connect and register
    Register(ProfileArgs),
    /// Send one message and wait for the answer
    Send(SendArgs),
    /// Receive messages until interrupted
    Listen(ListenArgs),
    /// Subscribe to Messaging Topics
    Subscribe(SubscribeArgs),
    /// Withdraw subscriptions to Messaging Topics
    Unsubscribe(UnsubscribeArgs),
    /// Change until when the server keeps a stored message
    Update(UpdateArgs),
    /// Have the server discard a stored message
    Discard(DiscardArgs),
    /// Share the client among the applications of this machine, over a local socket
    Serve(ServeArgs),
    /// Tell what the profile holds: keys, registration, messages seen
    Status(ProfileArgs),
    /// Withdraw the registration
    Deregister(ProfileArgs),
}

/// Arguments of `client profile`.
#[derive(Args, Debug)]
pub(crate) struct ProfileFromLabArgs {
    /// The lab's `lab.json`
    #[arg(long, value_name = "FILE")]
    pub(crate) lab: PathBuf,
    /// The subscriber: its place in the file (from 0), SUPI, GPSI or UE Service ID
    #[arg(long, value_name = "WHICH")]
    pub(crate) subscriber: String,
    /// Where to write the profile [default: standard output]
    #[arg(long, value_name = "FILE")]
    pub(crate) out: Option<PathBuf>,
    /// Directory for keys and state [default: NAME.state beside the profile]
    #[arg(long, value_name = "DIR")]
    pub(crate) state_dir: Option<PathBuf>,
    /// Let the client ask the Configuration Function who it is and where its server is, instead of writing that down
    #[arg(long)]
    pub(crate) bootstrap: bool,
    /// What carries messages to the server
    #[arg(long, value_enum, default_value_t = TransportArg::Tcp, conflicts_with = "bootstrap")]
    pub(crate) transport: TransportArg,
}

/// What carries messages to the server: CoAP, or the same over HTTPS.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub(crate) enum TransportArg {
    /// TCP and TLS
    Tcp,
    /// WebSocket and TLS, for networks that let only port 443 through
    Websocket,
    /// UDP, each message under OSCORE
    OscoreUdp,
    /// TCP, each message under OSCORE
    OscoreTcp,
    /// HTTPS and HTTP Digest, as a device that has only an HTTP stack
    Https,
    /// UDP and DTLS
    Udp,
}

/// Arguments of `client send`.
#[derive(Args, Debug)]
#[command(group = clap::ArgGroup::new("recipient").required(true).args(["to", "group", "topic", "broadcast"]))]
pub(crate) struct SendArgs {
    #[command(flatten)]
    pub(crate) profile: ProfileArgs,
    /// Recipient: `ue:UE_SERVICE_ID` or `as:AS_SERVICE_ID`
    #[arg(long, value_name = "KIND:ID")]
    pub(crate) to: Option<String>,
    /// Recipients: the members of a group, by its Group Service ID
    #[arg(long, value_name = "ID")]
    pub(crate) group: Option<String>,
    /// Recipients: the subscribers of a Messaging Topic
    #[arg(long)]
    pub(crate) topic: Option<String>,
    /// Recipients: whoever is in a broadcast area, by its Broadcast Area ID
    #[arg(long, value_name = "AREA", conflicts_with = "report")]
    pub(crate) broadcast: Option<String>,
    /// Payload as text
    #[arg(long, value_name = "TEXT", conflicts_with = "payload_file", required_unless_present = "payload_file")]
    pub(crate) payload: Option<String>,
    /// Payload from a file; `-` reads standard input
    #[arg(long, value_name = "FILE")]
    pub(crate) payload_file: Option<PathBuf>,
    /// Application ID: which application at the recipient gets it
    #[arg(long, value_name = "ID")]
    pub(crate) app: Option<String>,
    /// Message ID [default: a random UUID]; give the same one to send the same message again
    #[arg(long, value_name = "ID")]
    pub(crate) message_id: Option<String>,
    /// Ask for a delivery status report and wait for it
    #[arg(long)]
    pub(crate) report: bool,
    /// How long to wait for the report
    #[arg(long, value_name = "DURATION", value_parser = duration, default_value = "60s", requires = "report")]
    pub(crate) report_timeout: Duration,
    /// How many reports to wait for; a group or topic sends one from each member or subscriber
    #[arg(long, value_name = "N", default_value = "1", value_parser = clap::value_parser!(u32).range(1..), requires = "report")]
    pub(crate) reports: u32,
    /// Let the server store the message while the recipient is away
    #[arg(long)]
    pub(crate) store_and_forward: bool,
    /// How long the server may keep it
    #[arg(long, value_name = "DURATION", value_parser = duration, requires = "store_and_forward")]
    pub(crate) expires: Option<Duration>,
    /// Priority
    #[arg(long, value_enum, default_value = "middle")]
    pub(crate) priority: PriorityArg,
}

/// Priority of a message (TS 23.554 clause 8.3.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum PriorityArg {
    /// Before all others.
    High,
    /// The default.
    Middle,
    /// After all others.
    Low,
}

/// Arguments of `client listen`.
#[derive(Args, Debug)]
pub(crate) struct ListenArgs {
    #[command(flatten)]
    pub(crate) profile: ProfileArgs,
    /// Stop after N messages
    #[arg(long, value_name = "N")]
    pub(crate) count: Option<u64>,
    /// Stop after this time
    #[arg(long = "for", value_name = "DURATION", value_parser = duration)]
    pub(crate) period: Option<Duration>,
}

/// Where the lab's UDM is, and who asks.
#[derive(Args, Debug)]
pub(crate) struct ProvisioningArgs {
    /// The lab's `lab.json`: gives address, authority and certificate
    #[arg(long, value_name = "FILE")]
    pub(crate) lab: Option<PathBuf>,
    /// Root URL of the function, such as https://127.0.0.1:7001
    #[arg(long, value_name = "URL", required_unless_present = "lab")]
    pub(crate) url: Option<String>,
    /// Certificate that identifies the caller (PEM)
    #[arg(long, value_name = "FILE", required_unless_present = "lab")]
    pub(crate) cert: Option<PathBuf>,
    /// Key of that certificate (PEM)
    #[arg(long, value_name = "FILE", required_unless_present = "lab")]
    pub(crate) key: Option<PathBuf>,
    /// Authority that signed the function's certificate (PEM)
    #[arg(long, value_name = "FILE", required_unless_present = "lab")]
    pub(crate) ca: Option<PathBuf>,
}

/// What to do with subscribers.
#[derive(Debug, Subcommand)]
pub(crate) enum SubscriberCommand {
    /// Add a subscriber, or replace one
    Add(SubscriberAddArgs),
    /// List subscribers, without keys
    List(ProvisioningArgs),
    /// Remove a subscriber
    Remove {
        #[command(flatten)]
        target: ProvisioningArgs,
        /// SUPI, such as imsi-001010000000001
        #[arg(long)]
        supi: String,
    },
}

/// Arguments of `subscriber add`.
#[derive(Args, Debug)]
pub(crate) struct SubscriberAddArgs {
    #[command(flatten)]
    pub(crate) target: ProvisioningArgs,
    /// SUPI, such as imsi-001010000000009
    #[arg(long)]
    pub(crate) supi: String,
    /// GPSI, such as msisdn-491700000009
    #[arg(long)]
    pub(crate) gpsi: Option<String>,
    /// Permanent key K in hex [default: a random one, printed once]
    #[arg(long, value_name = "HEX", env = "MSGIN5G_SUBSCRIBER_K", hide_env_values = true)]
    pub(crate) k: Option<String>,
    /// OPc (or TOPc) in hex [default: a random one, printed once]
    #[arg(long, value_name = "HEX", env = "MSGIN5G_SUBSCRIBER_OPC", hide_env_values = true, conflicts_with = "op")]
    pub(crate) opc: Option<String>,
    /// OP (or TOP) in hex, instead of OPc
    #[arg(long, value_name = "HEX", env = "MSGIN5G_SUBSCRIBER_OP", hide_env_values = true)]
    pub(crate) op: Option<String>,
    /// Algorithm set
    #[arg(long, value_enum, default_value = "milenage")]
    pub(crate) algorithm: AlgorithmArg,
    /// Authentication method the UDM chooses
    #[arg(long, value_enum, default_value = "5g-aka")]
    pub(crate) method: MethodArg,
    /// Routing indicator, 1 to 4 digits
    #[arg(long, value_name = "DIGITS", default_value = "0")]
    pub(crate) routing_indicator: String,
    /// The subscription does not allow AKMA
    #[arg(long)]
    pub(crate) no_akma: bool,
}

/// The algorithm set of a subscription.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum AlgorithmArg {
    /// TS 35.206.
    Milenage,
    /// TS 35.231.
    Tuak,
}

/// The authentication method of a subscription.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum MethodArg {
    /// TS 33.501 clause 6.1.3.2.
    #[value(name = "5g-aka")]
    FiveGAka,
    /// TS 33.501 clause 6.1.3.1.
    #[value(name = "eap-aka-prime")]
    EapAkaPrime,
}

/// What to do with associations.
#[derive(Debug, Subcommand)]
pub(crate) enum AssociationCommand {
    /// Let a UE use a UE Service ID
    Add(AssociationArgs),
    /// List associations
    List {
        #[command(flatten)]
        target: ProvisioningArgs,
        /// Only those of this UE (SUPI or GPSI)
        #[arg(long)]
        ue_id: Option<String>,
    },
    /// Take it back
    Remove(AssociationArgs),
}

/// One association.
#[derive(Args, Debug)]
pub(crate) struct AssociationArgs {
    #[command(flatten)]
    pub(crate) target: ProvisioningArgs,
    /// The UE: SUPI or GPSI
    #[arg(long)]
    pub(crate) ue_id: String,
    /// The UE Service ID
    #[arg(long)]
    pub(crate) ue_service_id: String,
}

/// What to do with groups.
#[derive(Debug, Subcommand)]
pub(crate) enum GroupCommand {
    /// Make a group
    Add(GroupAddArgs),
    /// Show one group
    Show(GroupArgs),
    /// List groups
    List(ProvisioningArgs),
    /// Remove a group
    Remove(GroupArgs),
    /// Change who belongs to a group
    Member {
        /// What to do with members.
        #[command(subcommand)]
        command: GroupMemberCommand,
    },
}

/// What to do with the members of a group.
#[derive(Debug, Subcommand)]
pub(crate) enum GroupMemberCommand {
    /// Add members
    Add(GroupMemberArgs),
    /// Remove members
    Remove(GroupMemberArgs),
}

/// One group.
#[derive(Args, Debug)]
pub(crate) struct GroupArgs {
    #[command(flatten)]
    pub(crate) target: ProvisioningArgs,
    /// The Group Service ID
    #[arg(long, value_name = "ID")]
    pub(crate) group_id: String,
}

/// Arguments of `group add`.
#[derive(Args, Debug)]
pub(crate) struct GroupAddArgs {
    #[command(flatten)]
    pub(crate) group: GroupArgs,
    /// What it is, for people
    #[arg(long, value_name = "TEXT")]
    pub(crate) description: Option<String>,
    /// A member: a UE Service ID; may be given several times
    #[arg(long = "member", value_name = "UE_SERVICE_ID")]
    pub(crate) members: Vec<String>,
    /// Who may send to it besides its members: `ue:UE_SERVICE_ID` or `as:AS_SERVICE_ID`; may be given several times
    #[arg(long = "sender", value_name = "KIND:ID")]
    pub(crate) senders: Vec<String>,
    /// The Application Server that gets each message first and may refuse it
    #[arg(long, value_name = "AS_SERVICE_ID")]
    pub(crate) validating_as: Option<String>,
}

/// Members of one group.
#[derive(Args, Debug)]
pub(crate) struct GroupMemberArgs {
    #[command(flatten)]
    pub(crate) group: GroupArgs,
    /// A member: a UE Service ID; may be given several times
    #[arg(long = "member", value_name = "UE_SERVICE_ID", required = true)]
    pub(crate) members: Vec<String>,
}

/// What to derive.
#[derive(Debug, Subcommand)]
pub(crate) enum KeysCommand {
    /// The whole chain from the SIM's K to K_AF, for one 5G-AKA run
    Derive(DeriveArgs),
}

/// Arguments of `keys derive`.
#[derive(Args, Debug)]
#[command(group = clap::ArgGroup::new("operator").required(true).args(["opc", "op"]))]
pub(crate) struct DeriveArgs {
    /// Permanent key K in hex
    #[arg(long, value_name = "HEX", env = "MSGIN5G_K", hide_env_values = true)]
    pub(crate) k: String,
    /// OPc (or TOPc) in hex
    #[arg(long, value_name = "HEX")]
    pub(crate) opc: Option<String>,
    /// OP (or TOP) in hex
    #[arg(long, value_name = "HEX")]
    pub(crate) op: Option<String>,
    /// RAND, 16 octets in hex
    #[arg(long, value_name = "HEX")]
    pub(crate) rand: String,
    /// SQN, 6 octets in hex
    #[arg(long, value_name = "HEX")]
    pub(crate) sqn: String,
    /// AMF, 2 octets in hex
    #[arg(long, value_name = "HEX")]
    pub(crate) amf: String,
    /// Serving network name, such as 5G:mnc001.mcc001.3gppnetwork.org; also names the home network
    #[arg(long, value_name = "NAME")]
    pub(crate) snn: String,
    /// SUPI, such as imsi-001010000000001
    #[arg(long)]
    pub(crate) supi: String,
    /// Routing indicator, 1 to 4 digits
    #[arg(long, value_name = "DIGITS")]
    pub(crate) routing_indicator: String,
    /// FQDN of the application function
    #[arg(long, value_name = "FQDN")]
    pub(crate) af_fqdn: String,
    /// Ua* protocol identifier, 5 octets in hex
    #[arg(long, value_name = "HEX")]
    pub(crate) ua_protocol: String,
    /// Algorithm set
    #[arg(long, value_enum, default_value = "milenage")]
    pub(crate) algorithm: AlgorithmArg,
}

/// What to do with a configuration file.
#[derive(Debug, Subcommand)]
pub(crate) enum ConfigCommand {
    /// Say whether a file is a right configuration, and where not
    Check {
        /// The file
        file: PathBuf,
        /// Which function's file it is [default: found out from its sections]
        #[arg(long, value_enum)]
        kind: Option<ConfigKind>,
    },
}

/// Whose configuration a file is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum ConfigKind {
    /// MSGin5G Server.
    Server,
    /// AKMA Anchor Function.
    Aanf,
    /// MSGin5G Configuration Function.
    Configuration,
    /// NEF and CAPIF core function.
    Exposure,
    /// Profile of a client.
    Client,
}

/// Parses `1500ms`, `30s`, `5m`, `1h`, `7d`, or a bare number of seconds.
pub(crate) fn duration(text: &str) -> Result<Duration, String> {
    let digits = text.trim_end_matches(|character: char| character.is_ascii_alphabetic());
    let number: u64 =
        digits.parse().map_err(|_| format!("`{text}` is not a duration; write 500ms, 30s, 5m, 1h or 7d"))?;
    let milliseconds = match text.strip_prefix(digits).unwrap_or_default() {
        "ms" => Some(number),
        "" | "s" => number.checked_mul(1_000),
        "m" => number.checked_mul(60_000),
        "h" => number.checked_mul(3_600_000),
        "d" => number.checked_mul(86_400_000),
        unit => return Err(format!("`{unit}` is not a unit of time; write ms, s, m, h or d")),
    };
    milliseconds.map(Duration::from_millis).ok_or_else(|| format!("`{text}` is too long"))
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn durations_are_read_with_units_and_refused_otherwise() {
        assert_eq!(duration("1500ms"), Ok(Duration::from_millis(1500)));
        assert_eq!(duration("30"), Ok(Duration::from_secs(30)));
        assert_eq!(duration("5m"), Ok(Duration::from_secs(300)));
        assert_eq!(duration("1h"), Ok(Duration::from_secs(3600)));
        assert_eq!(duration("7d"), Ok(Duration::from_secs(604_800)));
        for wrong in ["", "s", "-1s", "1y", "1 h", "99999999999999999999s", "18446744073709551615d"] {
            assert!(duration(wrong).is_err(), "{wrong}");
        }
    }
}
