"""What a run takes in: folders, lists, manifests, tars."""
