//! Lab core: UDM/ARPF, AUSF, certificates and subscribers for a network on one machine
