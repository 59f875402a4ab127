"""OVN's northbound database: which policies, translations and routes its routers hold, and writing those of ours."""
