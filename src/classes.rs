//! Which Ingresses are ours: the flags of the agent and of whoever foretells what it would do.

use fairlead_ingress::IngressConfig;

/// Classes that are served.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct ClassArgs {
    /// Class name that the legacy annotation kubernetes.io/ingress.class is compared with
    #[arg(long, value_name = "NAME", default_value = "fairlead", env = "FAIRLEAD_INGRESS_CLASS")]
    ingress_class: String,
    /// IngressClasses with this spec.controller are ours
    #[arg(
        long,
        value_name = "NAME",
        default_value = "fairlead.io/ingress",
        env = "FAIRLEAD_CONTROLLER"
    )]
    controller: String,
    /// Serve Ingresses that name no class, too
    #[arg(long, env = "FAIRLEAD_WATCH_INGRESS_WITHOUT_CLASS")]
    watch_ingress_without_class: bool,
}

impl ClassArgs {
    /// The settings of an Ingress, for these classes and otherwise by default.
    pub(crate) fn config(&self) -> IngressConfig {
        IngressConfig {
            ingress_class: self.ingress_class.clone(),
            controller: self.controller.clone(),
            watch_ingress_without_class: self.watch_ingress_without_class,
            ..IngressConfig::default()
        }
    }
}
