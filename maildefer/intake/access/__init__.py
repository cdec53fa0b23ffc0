"""Access: which connections are let in, how clients authenticate, and which recipients are taken.

    connection_limits   connections in all and of each client, and those that are open
    recipients          whether any route takes a recipient; domains: whether its domain is ours
    policy_client       asks the project's policy, in a process of its own
    credentials         whether a name and a password belong together; passwords: the password file
    networks            addresses in networks
    security            certificate, credentials and trusted networks, read before privileges are dropped
    tls                 the certificate and its key

Imports point down: security > credentials > policy_client, passwords; security > tls, networks; recipients > domains.
"""
