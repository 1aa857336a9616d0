"""How a model is cut: QoQ (QServe, arXiv 2405.04532), one file per pass, and the baselines it is compared with."""
