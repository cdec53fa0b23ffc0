"""The page of `maildefer web`: what runs and what queues hold; it changes nothing. Needs `maildefer[web]`.

    server     one process: pages, and a stream of news for each that is open
    access     who may see them: a token or a session, the Host header; headers of all responses
    plots      numbers over time as SVG
    files/     templates, the style and the script; nothing is loaded from elsewhere

Imports point down: server > access, plots.
"""
