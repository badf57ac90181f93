"""A server's launch document, for tests that look at what the settings make of it."""

from backplane_launcher.launch_documents import server_document

SERVER_ARGUMENTS = {
    "server_id": "s",
    "model_id": "m",
    "control_path": "c",
    "port": 1,
    "listen_fd": 2,
    "metrics_dir": "d",
}


def server_told(settings):
    return server_document(settings, **SERVER_ARGUMENTS)
