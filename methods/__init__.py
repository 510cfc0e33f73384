"""The MLM-MTL family: methods over pretrained language models, one file each; the file name is the name."""
